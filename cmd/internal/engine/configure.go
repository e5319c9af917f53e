// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/user"
	"slices"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

// A Source is where the configuration comes from, apart from the flags of the
// settings.
type Source struct {
	Getenv  func(string) string
	Config  string       // --config
	Remotes []string     // --remote
	Log     *slog.Logger // never nil
	Notice  func(string) // tells a person something in passing; never nil
}

// Options is what an engine is built from.
type Options struct {
	Settings *config.Settings
	State    string // the state directory, which need not exist
	Backends map[string]backends.Opener
	Home     string // home directory; may be ""
	Getenv   func(string) string
	Log      *slog.Logger
	Notice   func(string)
}

// Configure completes the settings, whose flags were declared on flags and
// parsed, and chooses the state directory. It creates nothing. Its errors have
// exit codes.
func Configure(s *config.Settings, flags *pflag.FlagSet, src Source) (Options, error) {
	o := Options{Settings: s, Backends: all.Backends, Getenv: src.Getenv, Log: src.Log, Notice: src.Notice, Home: homeDir(src.Getenv)}
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	err = config.Load(s, flags, config.Inputs{
		Getenv: src.Getenv, Home: o.Home, Dir: dir, File: src.Config, Remotes: src.Remotes,
		Types: slices.Sorted(maps.Keys(o.Backends)),
	})
	if err != nil {
		return o, exit.WithCode(exit.Usage, err)
	}
	for _, note := range s.Notes {
		o.Log.Info(note)
	}
	o.State, err = o.stateDir()
	return o, err
}

// homeDir is $HOME, or what the user database says: a system service has no HOME.
func homeDir(getenv func(string) string) string {
	if home := getenv("HOME"); home != "" {
		return home
	}
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

func (o *Options) stateDir() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	getenv := func(name string) string {
		if name == "SREGFS_HOME" {
			return o.Settings.Home
		}
		return o.Getenv(name)
	}
	path, notes, err := statedir.Choose(getenv, o.Home, os.Getuid(), host)
	for _, note := range notes {
		o.Notice(note)
	}
	if err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	return path, nil
}
