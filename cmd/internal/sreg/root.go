// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/secrecy"
	"github.com/sregfs/sregfs/cmd/internal/term"
	"github.com/sregfs/sregfs/cmd/internal/version"
)

// Main runs the command with the process's arguments and returns its exit code.
func Main() int { return MainIn("/") }

// MainIn is Main with the files of the machine below another directory, for tests.
func MainIn(root string) int {
	_ = secrecy.Hide() // best effort: the kernel may refuse
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	out := exit.NewOutput(os.Stdout)
	a := &app{in: os.Stdin, out: out, err: os.Stderr, getenv: os.Getenv, system: root}
	err := backends.Guard(a.log(), func() error { return a.run(ctx, os.Args[1:]) })
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if ctx.Err() != nil && !a.watching {
		err = exit.WithCode(exit.Interrupted, ctx.Err())
	}
	if a.errorsAsJSON(os.Args[1:]) {
		return a.reportJSON(err)
	}
	return exit.Report(os.Stderr, "sreg", err)
}

// reportJSON is exit.Report for a program that reads the standard error.
func (a *app) reportJSON(err error) int {
	code := exit.Code(err)
	if code != exit.OK && !exit.Silent(err) {
		_ = writeJSON(a.err, map[string]any{"error": exit.Text(err), "code": code}, "")
	}
	return code
}

func (a *app) run(ctx context.Context, args []string) error {
	a.line = args
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
		Version:       version.Build().Long(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.overview(cmd)
			}
			return group(cmd, args)
		},
	}
	// Warnings about the configuration are printed by the commands that deal with it.
	root.PersistentPreRunE = a.prepare
	root.SetVersionTemplate("sreg {{.Version}}\n")
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages ", ".FlagUsagesWrapped 80 "))
	root.SetFlagErrorFunc(flagError)
	a.globalFlags(root.PersistentFlags())
	root.AddCommand(a.commands()...)
	grouped(root)
	a.completed(root)
	return root
}

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.addCmd(),
		a.backendCmd(),
		a.buildCmd(),
		a.cacheCmd(),
		a.configCmd(),
		a.cpCmd(),
		a.diffCmd(),
		a.doctorCmd(),
		a.execCmd(),
		a.getCmd(),
		a.imagesCmd(),
		a.importCmd(),
		a.inspectCmd(),
		a.labelsCmd(),
		a.logCmd(),
		a.loginCmd(),
		a.logoutCmd(),
		a.mountCmd(),
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
		a.runCmd(),
		a.searchCmd(),
		a.shareCmd(),
		a.shellCmd(),
		a.statusCmd(),
		a.syncCmd(),
		a.tagCmd(),
		a.tagsCmd(),
		a.unmountCmd(),
		a.unpinCmd(),
		a.untagCmd(),
		a.uploadsCmd(),
		a.verifyCmd(),
		a.versionCmd(),
		a.warmCmd(),
	}
}

// prepare reads the global flags, before any command.
func (a *app) prepare(cmd *cobra.Command, args []string) (err error) {
	a.operands = args
	if a.layout != "" {
		a.format, a.encoding = asJSON, inTemplate
		if a.template, err = parseTemplate(a.layout); err != nil {
			return err
		}
	}
	if out, ok := a.out.(*exit.Output); ok {
		out.Colours = !a.plain && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb" && term.Is(out)
	}
	for ; cmd != nil; cmd = cmd.Parent() {
		a.warns = a.warns || cmd.Name() == "backend" || cmd.Name() == "config" || cmd.Name() == "login" || cmd.Name() == "remote" || cmd.Name() == "status"
	}
	return nil
}

func (a *app) globalFlags(fs *pflag.FlagSet) {
	fs.StringVar(&a.config, "config", "", "configuration `file` (default $SREGFS_CONFIG or ~/.config/sregfs/config.toml)")
	fs.StringArrayVar(&a.remotes, "remote", nil, "one more `NAME=TYPE[,key=value…]`, where no mount is running")
	a.settingFlags = pflag.NewFlagSet("settings", pflag.ContinueOnError)
	a.settings.Flags(a.settingFlags)
	for _, name := range []string{"home", "storage", "cache-dir", "default"} {
		fs.AddFlag(a.settingFlags.Lookup(name))
	}
	fs.VarP(outputFlag{a}, "output", "o", "how to print the answer, a `FORMAT`: text, json, yaml, csv or name")
	fs.StringVar(&a.layout, "format", "", "print the fields of the JSON by a Go `TEMPLATE`: '{{.uri}} {{.size}}'")
	fs.StringVar(&a.sort, "sort", "", "sort a list by a `COLUMN[:desc]`")
	fs.IntVar(&a.limit, "limit", 0, "print so many of a list, at most: `N`")
	fs.BoolVar(&a.plain, "no-color", false, "no colours on a terminal (also with NO_COLOR set)")
	fs.BoolVarP(&a.quiet, "quiet", "q", false, "no progress, and nothing else that is not the answer")
	fs.BoolVar(&a.debug, "debug", false, "show on the standard error what is asked and answered, without secrets")
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
	if here, ok := otherWords[args[0]]; ok && !cmd.HasParent() {
		return usagef("%s has no command %q: that is %s", cmd.CommandPath(), args[0], here)
	}
	return usagef("%s has no command %q%s", cmd.CommandPath(), args[0], backends.DidYouMean(args[0], known))
}

// otherWords are the commands of other tools that have another name here.
var otherWords = map[string]string{
	"clean":     "\"sreg cache clean\"",
	"container": "\"sreg images\"",
	"df":        "\"sreg cache du\"",
	"download":  "\"sreg pull\"",
	"du":        "\"sreg cache du\"",
	"fetch":     "\"sreg pull\", or \"sreg warm\" for many",
	"find":      "\"sreg search\"",
	"gc":        "\"sreg cache clean\"",
	"image":     "\"sreg images\", and \"sreg inspect URI\" of one",
	"ls-remote": "\"sreg images --refresh --in REMOTE\"",
	"mount":     "\"sregfs DIRECTORY\"",
	"prune":     "\"sreg cache clean\"",
	"registry":  "\"sreg remote\"",
	"start":     "\"sregfs DIRECTORY\", which mounts",
	"stop":      "\"fusermount3 -u DIRECTORY\"",
	"umount":    "\"fusermount3 -u DIRECTORY\"",
	"upload":    "\"sreg push\"",
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

// Command returns sreg with all of its commands, for what is made out of them: the manual
// and the completions. It is not to be run.
func Command() *cobra.Command { return (&app{}).root() }
