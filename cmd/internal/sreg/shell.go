// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

func (a *app) shellCmd() *cobra.Command {
	cmd := a.startCmd("shell", "shell [REMOTE] | shell [OPTIONS] URI [ARGS...]", "Look around in the catalogue, or open a shell in an image", 0,
		"  sreg shell lab\n  sreg shell --nv lab://vsoch/hello:2.0")
	cmd.Long = `With the name of a remote (lab, lab://, lab://vsoch/), or with nothing: a prompt at
which the catalogue is a tree of directories. "help" there tells the commands; Tab
completes; without a terminal the lines of the standard input are run. With
anything else: a shell in that image.` + startHelp + "shell …"
	cmd.RunE = func(cmd *cobra.Command, all []string) error {
		s, err := a.readStart(cmd, all)
		if err != nil || s.help {
			return errors.Join(err, helpIf(cmd, s.help))
		}
		if len(s.options)+len(s.args) == 0 {
			at, ok, err := a.promptAt(cmd.Context(), s.image)
			if err != nil || ok {
				return errors.Join(err, a.prompt(cmd, at, ok))
			}
		}
		if s.image == "" {
			return usagef("usage: %s", cmd.UseLine())
		}
		return a.start(cmd.Context(), s)
	}
	return cmd
}

// promptAt returns where the prompt begins; ok is false if a word is no remote's, but an
// image's.
//
// Errors: fs.ErrNotExist if the word can be nothing but that of a remote, and there is none.
func (a *app) promptAt(ctx context.Context, word string) (at position, ok bool, err error) {
	if word == "" {
		return at, true, nil
	}
	if at, err = at.to(word); err != nil {
		return at, false, nil //nolint:nilerr // what it is instead, or why it is nothing, the image's name tells
	}
	written := strings.HasSuffix(word, "/") && strings.Contains(word, "://")
	if !written && (at.collection != "" || strings.Contains(word, "/")) {
		return at, false, nil
	}
	err = a.with(ctx, func(c *control.Client) error {
		names, err := remoteNames(ctx, c)
		ok = slices.Contains(names, at.remote) || a.settings.Hosts.Check(at.remote) == nil
		return err
	})
	if err == nil && !ok && written {
		err = backends.NotFound("no remote is named %q", at.remote)
	}
	return at, ok, err
}

func remoteNames(ctx context.Context, c *control.Client) (names []string, err error) {
	st, err := c.Status(ctx)
	for _, r := range st.Remotes {
		names = append(names, r.Name)
	}
	return names, err
}

// A shell is a prompt, or a list of commands from the standard input.
type shell struct {
	*app
	at       position
	own      []string // options of sreg that each command gets
	commands []string // of sreg
	asks     bool     // a person types
	lines    *bufio.Scanner
	edit     *editor
	exe      string
	code     int // of the last command
}

// prompt runs commands until they end. The exit code is that of the last one.
func (a *app) prompt(cmd *cobra.Command, at position, wanted bool) error {
	if !wanted {
		return nil
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	s := &shell{app: a, at: at, exe: exe, asks: term.Is(a.in) && term.Is(a.out)}
	s.own = a.line[:max(0, slices.Index(a.line, cmd.Name()))]
	for _, c := range cmd.Root().Commands() {
		if c.IsAvailableCommand() || c.Name() == "help" {
			s.commands = append(s.commands, c.Name())
		}
	}
	ctx := cmd.Context()
	if s.asks {
		// Ctrl-C ends a command, and not the prompt; SIGTERM and SIGHUP still end that.
		signal.Reset(os.Interrupt)
		if s.edit, err = newEditor(ctx, s); err != nil {
			return err
		}
	} else {
		s.lines = bufio.NewScanner(a.in)
	}
	for {
		line, err := s.read(ctx)
		if err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
		if err := s.run(ctx, line); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	return exit.Silently(s.code)
}

// read returns the next line; io.EOF after the last one.
func (s *shell) read(ctx context.Context) (string, error) {
	if s.edit != nil {
		return s.edit.read(ctx, s.at.prompt())
	}
	return interruptible(ctx, func() (string, error) {
		if s.lines.Scan() {
			return s.lines.Text(), nil
		}
		if err := s.lines.Err(); err != nil {
			return "", fmt.Errorf("standard input: %w", err)
		}
		return "", io.EOF
	})
}

// run runs one line. What it fails with is printed, and in s.code; its own errors are ctx's,
// and io.EOF for "exit".
func (s *shell) run(ctx context.Context, line string) error {
	words, err := splitWords(line)
	switch {
	case err == nil && len(words) == 0:
		return nil
	case err == nil && (words[0] == "exit" || words[0] == "quit"):
		return io.EOF
	case err == nil:
		err = s.command(ctx, words)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.code = exit.Report(s.err, "sreg", err)
	return nil
}

// command runs a command: one of the prompt's own, else one of sreg.
func (s *shell) command(ctx context.Context, words []string) error {
	if own, ok := s.builtins()[words[0]]; ok {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
		defer stop()
		return own.run(ctx, words[1:])
	}
	if !slices.Contains(s.commands, words[0]) {
		known := slices.Concat(s.commands, s.builtinNames())
		slices.Sort(known)
		return usagef("there is no command %q%s (\"help\" lists them)", words[0], backends.DidYouMean(words[0], slices.Compact(known)))
	}
	return s.child(ctx, append(words[:1:1], s.absolute(ctx, words[1:])...))
}

// child runs a command of sreg as a process of its own: it can be interrupted alone, and
// may become another program.
func (s *shell) child(ctx context.Context, words []string) error {
	ignored := make(chan os.Signal, 1) // the child has the signal, too
	signal.Notify(ignored, os.Interrupt)
	defer signal.Stop(ignored)
	cmd := exec.CommandContext(ctx, s.exe)
	cmd.Args = slices.Concat([]string{"sreg"}, s.own, words)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if s.asks {
		cmd.Stdin = s.in
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, s.err
	err := cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.Silently(max(failed.ExitCode(), exit.Failed))
	}
	return err
}

// splitWords splits a line as a shell does: at spaces, with quotes and backslashes, and
// without anything else.
func splitWords(line string) (words []string, err error) {
	var word strings.Builder
	var quote rune
	in, escaped := false, false
	for _, c := range line {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			in, quote = true, c
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		case quote == 0 && c == '#' && !in:
			return words, nil
		default:
			in = true
			word.WriteRune(c)
		}
	}
	if quote != 0 || escaped {
		return nil, usagef("the line ends within a quotation")
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// quoteWord is the inverse of splitWords for one word.
func quoteWord(word string) string {
	var b strings.Builder
	for _, c := range word {
		if strings.ContainsRune(" \t\\'\"#", c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}
