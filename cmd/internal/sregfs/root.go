// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/secrecy"
	"github.com/sregfs/sregfs/cmd/internal/version"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

// A command is one run of the program.
type command struct {
	args       []string // with the program's name
	out, err   io.Writer
	getenv     func(string) string
	system     string // root of the machine's files
	flags      *pflag.FlagSet
	settings   config.Settings
	config     string
	remotes    []string
	options    []string // of -o, not yet split
	mountFlags fusefs.MountFlags
	foreground bool
	verbose    int
	mountpoint string   // absolute, once the arguments are read; or as fdMount has it
	mountFile  *os.File // of an fdMount that the starter has passed on
}

// Main runs the command with the process's arguments and returns its exit code.
func Main() int { return MainIn("/") }

// MainIn is Main with the files of the machine below another directory, for tests.
func MainIn(root string) int {
	closeInherited(os.Args, os.Getenv) // before anything is opened
	_ = secrecy.Hide()                 // as early as can be; harden says where the kernel refuses
	out := exit.NewOutput(os.Stdout)
	c := &command{args: os.Args, out: out, err: os.Stderr, getenv: os.Getenv, system: root}
	err := c.run(context.Background())
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if reported(err) {
		return exit.Code(err)
	}
	return exit.Report(os.Stderr, "sregfs", err)
}

func (c *command) run(ctx context.Context) error {
	args := c.args[1:]
	if isMountHelper(c.args[0]) {
		var fake bool
		if args, fake = helperArgs(args); fake {
			return nil
		}
	}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(c.out)
	root.SetErr(c.err)
	return root.ExecuteContext(ctx)
}

const help = `sregfs shows container image registries as directories: one for each remote, in it
one for each collection, in that the images. It goes to the background once the
mount can be used; fusermount3 -u MOUNTPOINT, or SIGTERM, ends it.

Remotes are configured in ~/.config/sregfs/config.toml, by --remote, or by the
variables of sregistry. The remote "local" is always there.

Every setting can also be given as the variable SREGFS_NAME, as a key of the
configuration file, and as a mount option. In /etc/fstab:

  sregfs  /home/me/images  fuse.sregfs  noauto,user,exec,config=/home/me/sregfs.toml  0  0

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 not
permitted, 5 unreachable, 7 already running, 130 interrupted.`

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "sregfs [flags] MOUNTPOINT",
		Short:         "Mount container image registries as directories",
		Long:          help,
		Version:       version.Build().Long(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          func(cmd *cobra.Command, args []string) error { return c.mount(cmd.Context(), args) },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetVersionTemplate("sregfs {{.Version}}\n")
	c.flags = root.Flags()
	c.flags.SortFlags = false
	c.flags.BoolVarP(&c.foreground, "foreground", "f", false, "stay in the foreground, and tell systemd when the mount works")
	c.flags.StringVar(&c.config, "config", "", "configuration `file` (default $SREGFS_CONFIG or ~/.config/sregfs/config.toml)")
	c.flags.StringArrayVar(&c.remotes, "remote", nil, "one more `NAME=TYPE[,key=value…]`; can be repeated")
	c.settings.Flags(c.flags)
	c.flags.StringArrayVarP(&c.options, "option", "o", nil, "mount `options` as in fstab: key[=value],…")
	c.flags.CountVarP(&c.verbose, "verbose", "v", "log more; twice logs every operation")
	root.SetFlagErrorFunc(c.flagError)
	c.completed(root)
	return root
}

func (c *command) flagError(_ *cobra.Command, err error) error {
	hint := ""
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok && len(unknown.GetSpecifiedName()) > 1 {
		var known []string
		c.flags.VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
		hint = backends.DidYouMean(unknown.GetSpecifiedName(), known)
	}
	return usagef("%v%s", err, hint)
}

func usagef(format string, args ...any) error {
	return exit.WithCode(exit.Usage, fmt.Errorf(format, args...))
}

// mount is what the command does, in this process or in another.
func (c *command) mount(ctx context.Context, args []string) error {
	for _, text := range c.options {
		if err := c.applyOptions(text); err != nil {
			return err
		}
	}
	if err := c.applyArgs(args); err != nil {
		return err
	}
	starter, err := c.takeStarter()
	var handed error // before it is handed on
	if _, ok := fdMount(c.mountpoint); ok && starter == nil {
		_, handed = fusefs.Check(ctx, c.mountpoint, fusefs.Options{MountFlags: c.mountFlags})
	}
	switch {
	case err != nil:
		return err
	case starter != nil:
		return starter.report(c.serve(ctx, starter))
	case handed != nil:
		return handed
	case c.foreground && c.getenv("NOTIFY_SOCKET") != "":
		return c.supervise()
	case c.foreground:
		return c.serve(ctx, nil)
	}
	return c.background()
}

// applyArgs reads "[SOURCE] MOUNTPOINT". A source that is a file name is the
// configuration; any other is a label that only shows up in fstab.
func (c *command) applyArgs(args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return usagef("usage: sregfs [flags] MOUNTPOINT (sregfs --help tells more)")
	}
	if len(args) == 2 && filepath.IsAbs(args[0]) && c.config == "" {
		c.config = args[0]
	}
	if fd, ok := fdMount(args[len(args)-1]); ok {
		c.mountpoint = fdPrefix + strconv.Itoa(fd)
		return nil
	}
	abs, err := filepath.Abs(args[len(args)-1])
	if err != nil {
		return err
	}
	// The name is compared with the kernel's table, which knows no links. The
	// mount point itself is not touched: what is mounted there may hang.
	if dir, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil {
		abs = filepath.Join(dir, filepath.Base(abs))
	}
	c.mountpoint = abs
	return nil
}

func isMountHelper(name string) bool { return strings.HasPrefix(filepath.Base(name), "mount.") }

// Command returns sregfs for what is made out of it: the manual and the completions. It is
// not to be run.
func Command() *cobra.Command { return (&command{}).root() }
