// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"

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
	Root    string       // where the machine's files begin: "" is "/", another one for tests
	Log     *slog.Logger // never nil
	Notice  func(string) // tells a person something in passing; never nil
}

// Options is what an engine is built from.
type Options struct {
	Settings *config.Settings
	State    string // the state directory, which need not exist
	// StateNotes say why State is not where it is looked for first: once, by whoever
	// begins to keep it there, and in "sreg status".
	StateNotes []string
	Types      backends.Types
	Home       string // home directory; may be ""
	Logins     string // directory of the logins that are stored; "" without a home
	Inputs     config.Inputs
	Flags      *pflag.FlagSet // of the settings, as they were parsed
	Root       string         // Source.Root
	// Short says that the process ends soon: it keeps no ballast for a disk that others
	// fill meanwhile, which of 500 machines would be 31 GiB.
	Short  bool
	Getenv func(string) string
	Log    *slog.Logger
	Notice func(string)
}

// Configure completes the settings, whose flags were declared on flags and
// parsed, and chooses the state directory. It creates nothing. Whom the warnings of the
// settings concern the caller knows. Its errors have exit codes; what is returned with one is enough for ChangeConfig.
func Configure(s *config.Settings, flags *pflag.FlagSet, src Source) (Options, error) {
	o := Options{Settings: s, Types: all.Types, Getenv: src.Getenv, Log: src.Log, Notice: src.Notice, Home: homeDir(src.Getenv)}
	o.Flags, o.Root = flags, filepath.Join("/", src.Root)
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	o.Inputs = config.Inputs{
		Getenv: src.Getenv, Home: o.Home, Dir: dir, File: src.Config, Remotes: src.Remotes,
		System: filepath.Join(o.Root, config.SystemDir),
	}
	o.Logins = config.CredentialsDir(o.Inputs)
	if err := config.Load(s, flags, o.Inputs); err != nil {
		return o, exit.WithCode(exit.Usage, err)
	}
	for _, warning := range s.Warnings {
		o.Log.Warn(warning)
	}
	o.State, err = o.stateDir()
	return o, err
}

// ChangeConfig edits the configuration file and returns its name. The file stays
// as it is if it could not be loaded afterwards, or if the backend of the remote
// called name, should there be one, does not open.
//
// Errors: those of config.Change.
func (o Options) ChangeConfig(ctx context.Context, name string, edit func([]byte) ([]byte, error)) (path string, err error) {
	return config.Change(o.Inputs, edit, func(s config.Settings) error {
		for _, r := range s.Remotes {
			if r.Name != name {
				continue
			}
			backend, err := o.OpenBackend(ctx, r)
			if err != nil {
				return fmt.Errorf("%w%s", err, nearCommon(r.Config))
			}
			return backends.NewClient(r.Name, backend, backends.ClientOptions{}).Close()
		}
		return nil
	})
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
		note += "; it is in " + path
		o.StateNotes = append(o.StateNotes, note)
		o.Log.Info(note)
	}
	if err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	return path, nil
}
