// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"text/template"

	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/fsys"
)

// An app is one run of the command.
type app struct {
	in     io.Reader
	out    io.Writer
	err    io.Writer
	getenv func(string) string
	line   []string // the command line, without the name of the program
	system string   // root of the machine's files: "/"

	// The global flags.
	config       string
	remotes      []string
	settings     config.Settings
	settingFlags *pflag.FlagSet
	format       format
	encoding     encoding           // of the data, where format is asJSON
	template     *template.Template // what --format says, where encoding is inTemplate
	layout       string             // --format
	sort         string
	limit        int // of a list; 0 for all
	quiet, debug bool
	plain        bool // no colours

	onlySays   bool          // --dry-run, of dryRunFlag
	watching   bool          // Ctrl-C is how it is meant to end
	operands   []string      // of the command
	nothing    string        // what to say of a list of nothing
	marks      []string      // what is marked in the names and reasons of a list, on a terminal
	warns      bool          // print the warnings about the configuration, once
	lines      *bufio.Reader // of in, once a question was asked
	mount      string        // where the running mount is, "" if none; set by with
	mountNames fsys.Names    // how names are spelled there
	state      string        // the state directory; set by with
}

// with calls fn with a client of the running mount; without a mount, of a catalogue in
// this process.
//
// Two races make it call fn again, because in both fn has done nothing: a mount takes the
// state directory after we have seen none (Held), or the mount ends between our connecting
// and its reading of the request (ErrUnheard).
func (a *app) with(ctx context.Context, fn func(*control.Client) error) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		s, err := engine.Connect(ctx, o)
		if err != nil {
			return err
		}
		a.mount, a.mountNames, a.state = s.Mount, fsys.Names(s.Names), o.State
		if a.debug && a.mount != "" && try == 1 {
			a.notice("the mount at " + a.mount + " does the work: its requests are in its log if it runs with -v -v, see \"sreg log\"")
		}
		err = fn(s.Client)
		if err != nil && ctx.Err() == nil {
			err = a.withRemedy(o, a.withKnownTags(ctx, s.Client, err))
		}
		again := err != nil && (s.Held() || errors.Is(err, control.ErrUnheard)) && try < 3
		if closeErr := s.Close(ctx); !again {
			return errors.Join(err, closeErr)
		}
	}
}

func (a *app) options() (engine.Options, error) {
	o, err := engine.Configure(&a.settings, a.settingFlags, engine.Source{
		Getenv: a.getenv, Config: a.config, Remotes: a.remotes, Root: a.system, Log: a.log(), Notice: a.notice,
	})
	for _, warning := range a.settings.Warnings {
		if a.warns {
			a.notice(warning)
		}
	}
	a.warns = false
	o.Short = true
	return o, err
}

// log returns the logger for work in this process. Without --debug it prints panics only.
func (a *app) log() *slog.Logger {
	level := backends.LevelPanic
	if a.debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// notice prints something for the user that is not the command's answer.
func (a *app) notice(text string) {
	if !a.quiet {
		fmt.Fprintln(a.err, "sreg: "+backends.Printable(text))
	}
}

// absolute makes a file name mean the same to the mount, which has another
// working directory.
func absolute(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return abs, nil
}

// existingFile returns the absolute name of a file. It opens the file to report an error
// with the permissions of this user, before the mount is asked.
func existingFile(path string) (string, error) {
	abs, err := absolute(path)
	if err != nil {
		return "", err
	}
	f, err := backends.OpenRegular(abs, os.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	return abs, f.Close()
}
