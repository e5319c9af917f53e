// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/secrecy"
	"github.com/sregfs/sregfs/cmd/internal/version"
)

// Main runs the command with the process's arguments and returns its exit code.
func Main() int {
	_ = secrecy.Hide() // best effort: the kernel may refuse
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	out := exit.NewOutput(os.Stdout)
	a := &app{in: os.Stdin, out: out, err: os.Stderr, getenv: os.Getenv}
	err := backends.Guard(a.log(), func() error { return a.run(ctx, os.Args[1:]) })
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if ctx.Err() != nil {
		err = exit.WithCode(exit.Interrupted, ctx.Err())
	}
	if a.format == asJSON {
		return a.reportJSON(err)
	}
	return exit.Report(os.Stderr, "sreg", err)
}

// reportJSON is exit.Report for a program that reads the standard error.
func (a *app) reportJSON(err error) int {
	code := exit.Code(err)
	if code != exit.OK && code != exit.Interrupted {
		_ = writeJSON(a.err, map[string]any{"error": err.Error(), "code": code}, "")
	}
	return code
}

func (a *app) run(ctx context.Context, args []string) error {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return root.ExecuteContext(ctx)
}

const rootHelp = `sreg works with container images on every configured registry, and with those
on this machine. If sregfs has them mounted, sreg asks it; if not, it does the
same work itself.

An image is written [REMOTE://]COLLECTION/IMAGE[:TAG][@VERSION]. Without a remote
it means $SREGISTRY_CLIENT, or else "local"; without a tag, "latest".

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 not found, 4 not
permitted, 5 unreachable, 6 content does not match its digest, 7 in use by
another program, 130 interrupted.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "sreg COMMAND",
		Short:         "Work with container images on every registry",
		Long:          rootHelp,
		Version:       version.Long(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
	}
	// Warnings about the configuration are printed by the commands that deal with it.
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		for ; cmd != nil; cmd = cmd.Parent() {
			a.warns = a.warns || cmd.Name() == "login" || cmd.Name() == "remote" || cmd.Name() == "status"
		}
	}
	root.SetVersionTemplate("sreg {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	a.globalFlags(root.PersistentFlags())
	root.AddCommand(
		a.addCmd(),
		a.cacheCmd(),
		a.getCmd(),
		a.imagesCmd(),
		a.importCmd(),
		a.inspectCmd(),
		a.labelsCmd(),
		a.loginCmd(),
		a.logoutCmd(),
		a.mvCmd(),
		a.pathCmd(),
		a.pinCmd(),
		a.pullCmd(),
		a.pushCmd(),
		a.recordCmd(),
		a.remoteCmd(),
		a.renameCmd(),
		a.rmCmd(),
		a.rmiCmd(),
		a.searchCmd(),
		a.shareCmd(),
		a.statusCmd(),
		a.unpinCmd(),
		a.uploadsCmd(),
		a.versionCmd(),
		a.warmCmd(),
	)
	return root
}

func (a *app) globalFlags(fs *pflag.FlagSet) {
	fs.StringVar(&a.config, "config", "", "configuration `file` (default $SREGFS_CONFIG or ~/.config/sregfs/config.toml)")
	fs.StringArrayVar(&a.remotes, "remote", nil, "one more `NAME=TYPE[,key=value…]`, where no mount is running")
	a.settingFlags = pflag.NewFlagSet("settings", pflag.ContinueOnError)
	a.settings.Flags(a.settingFlags)
	for _, name := range []string{"home", "storage", "cache-dir", "default"} {
		fs.AddFlag(a.settingFlags.Lookup(name))
	}
	fs.VarP(&a.format, "output", "o", "how to print the answer: `text|json`")
	fs.BoolVarP(&a.quiet, "quiet", "q", false, "no progress, and nothing else that is not the answer")
	fs.BoolVar(&a.debug, "debug", false, "say on the standard error what happens")
}

// group runs a command that only has subcommands.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var known []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			known = append(known, c.Name())
		}
	}
	return usagef("%s has no command %q%s", cmd.CommandPath(), args[0], backends.DidYouMean(args[0], known))
}

func flagError(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return usagef("%s: %v", cmd.CommandPath(), err)
	}
	var known []string // with the inherited ones
	cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, f.Name) })
	hint := ""
	if name := unknown.GetSpecifiedName(); len(name) > 1 {
		hint = backends.DidYouMean(name, known)
	}
	return usagef("%s: %v%s", cmd.CommandPath(), err, hint)
}

// usagef makes a usage error.
func usagef(format string, args ...any) error {
	return exit.WithCode(exit.Usage, fmt.Errorf(format, args...))
}

// maxArgs stands for any number of arguments.
const maxArgs = 1 << 30

// needArgs is cobra.RangeArgs with an error that shows the usage.
func needArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || len(args) > high {
			return usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}
