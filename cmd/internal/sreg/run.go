// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/fsys"
)

const startHelp = `

Apptainer is started in place of sreg, else Singularity: that of the PATH, or what
the setting "runtime" ($SREGFS_RUNTIME) names. It gets the OPTIONS before the
image and the arguments after it as they are, and its exit code is the exit code.
The image is opened in the running mount; without a mount it is fetched first. In
place of the URI there may be a file: its name begins with "/", "./" or "../".

Options of sreg itself stand before the command: sreg --quiet `

func (a *app) runCmd() *cobra.Command {
	return a.startCmd("run", "run [OPTIONS] URI [ARGS...]", "Run an image's own program", 0,
		"  sreg run --bind /data docker://quay.io/biocontainers/samtools:1.20--h50ea8bc_1 samtools --version")
}

func (a *app) execCmd() *cobra.Command {
	return a.startCmd("exec", "exec [OPTIONS] URI COMMAND [ARGS...]", "Run a command in an image", 1,
		"  sreg exec vsoch/hello:2.0 cat /etc/os-release")
}

// startCmd is a command that starts the program of that verb in an image, with at least
// so many arguments.
func (a *app) startCmd(verb, use, short string, args int, example string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: short + "." + startHelp + verb + " …", Example: example,
		DisableFlagParsing: true, // the options are another program's
		ValidArgsFunction:  a.completeImage,
		RunE: func(cmd *cobra.Command, all []string) error {
			s, err := a.readStart(cmd, all)
			switch {
			case err != nil || s.help:
				return errors.Join(err, helpIf(cmd, s.help))
			case s.image == "" || len(s.args) < args:
				return usagef("usage: %s", cmd.UseLine())
			}
			return a.start(cmd.Context(), s)
		},
	}
}

func helpIf(cmd *cobra.Command, wanted bool) error {
	if !wanted {
		return nil
	}
	return cmd.Help()
}

// A start is what is to be run: a verb of the runtime, with its options, on an image.
type start struct {
	verb    string
	options []string
	image   string // a URI, or a file
	args    []string
	help    bool
}

// readStart reads the command line of a command whose options are another program's. All
// are its arguments; cobra puts those of sreg, which stand before the verb, in front of them.
func (a *app) readStart(cmd *cobra.Command, all []string) (start, error) {
	s := start{verb: cmd.Name()}
	own := a.before(cmd.Name(), all)
	if err := cmd.Root().PersistentFlags().Parse(own); err != nil {
		return s, flagError(cmd, err)
	}
	rest := all[len(own):]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") && rest[0] != "--" {
		n := 1
		switch {
		case rest[0] == "-h" || rest[0] == "--help":
			s.help = true
		case takesValue(rest[0]):
			n = min(2, len(rest))
		}
		s.options, rest = append(s.options, rest[:n]...), rest[n:]
	}
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	if len(rest) > 0 {
		s.image, s.args = rest[0], rest[1:]
	}
	return s, nil
}

// before returns the arguments that stand before a verb on the command line: it has them and
// all others, in this order, with the verb between.
func (a *app) before(verb string, all []string) []string {
	for i, arg := range a.line {
		if arg == verb && slices.Equal(slices.Concat(a.line[:i], a.line[i+1:]), all) {
			return all[:i]
		}
	}
	return nil
}

// valued are the options of "apptainer run", "exec" and "shell" 1.4, and of SingularityCE 4,
// that take the next argument as their value: from their help. An option that is in neither
// is said with "=".
var valued = strings.Fields(`
	add-caps app apply-cgroups arch authfile bind blkio-weight blkio-weight-device cdi-dirs cpu-shares cpus cpuset-cpus
	cpuset-mems cwd device dns docker-host drop-caps env env-file fusemount home hostname memory memory-reservation
	memory-swap mount netns-path network network-args no-mount overlay pem-path pids-limit pwd runscript-timeout scratch
	security shell workdir`)

// valuedLetters are their short forms.
const valuedLetters = "BHSWos"

func takesValue(option string) bool {
	if name, long := strings.CutPrefix(option, "--"); long {
		return slices.Contains(valued, name)
	}
	// Of letters in one argument the first that takes a value has the rest for it.
	i := strings.IndexAny(option, valuedLetters)
	return i == len(option)-1
}

// start replaces this process by the runtime, with an image. It returns only if that fails.
func (a *app) start(ctx context.Context, s start) error {
	if _, err := a.options(); err != nil {
		return err
	}
	program, err := a.runtime(s.verb)
	if err != nil {
		return err
	}
	path := s.image
	if !writtenAsFile(path) {
		if path, err = a.openable(ctx, s.image); err != nil {
			return err
		}
	}
	argv := slices.Concat([]string{filepath.Base(program), s.verb}, s.options, []string{path}, s.args)
	if err := ctx.Err(); err != nil {
		return err
	}
	err = syscall.Exec(program, argv, os.Environ())
	return fmt.Errorf("%s %s: %s: %w", s.verb, s.image, program, err)
}

// writtenAsFile reports whether what stands in place of a URI is the name of a file.
func writtenAsFile(s string) bool {
	return strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../")
}

// runtimes are the programs that run images, the one that is looked for first first.
var runtimes = []string{"apptainer", "singularity"}

// runtime returns the path of the program that runs images. The configuration has been read.
func (a *app) runtime(verb string) (string, error) {
	if named := a.settings.Runtime; named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", usagef("%s: the setting runtime: %v", verb, err)
		}
		return filepath.Abs(path)
	}
	for _, name := range runtimes {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", usagef("%s: neither apptainer nor singularity is on the PATH: install Apptainer (https://apptainer.org/docs/admin/latest/installation.html), or say where it is with the setting \"runtime\" ($SREGFS_RUNTIME)", verb)
}

// openable returns the path that an image can be opened at: in the running mount, if this
// process reaches it there, else of a file with all of it, which is fetched if it is not here.
func (a *app) openable(ctx context.Context, uri string) (path string, err error) {
	err = a.with(ctx, func(c *control.Client) error {
		r, err := c.Find(ctx, uri)
		if err != nil {
			return err
		}
		if a.mount != "" {
			path = filepath.Join(a.mount, fsys.PathOf(a.mountNames, r.Remote, r.Ref, r.Format))
			if _, err := os.Stat(path); err == nil {
				return nil
			}
		}
		if path = r.Path; path != "" {
			return nil
		}
		progress, end := a.bar(r.URI)
		r, err = c.Pull(ctx, r.URI, verbs.PullOptions{}, progress)
		end()
		path = r.Path
		return err
	})
	if err == nil && path == "" {
		err = backends.NotFound("%s has no file on this machine", uri)
	}
	return path, err
}
