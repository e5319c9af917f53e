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
	"time"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) buildCmd() *cobra.Command {
	var name string
	var force bool
	cmd := &cobra.Command{
		Use:   "build [--name URI] RECIPE [-- OPTIONS...]",
		Short: "Build an image of a definition file, and publish it",
		Long: `Build an image with the Apptainer or Singularity of this machine (the setting
"runtime" names another), and add it to the local store, or push it to the remote
of the URI. The OPTIONS after "--" are those of "apptainer build". Without --name
the image is called as the RECIPE: hello.def makes library/hello:latest.`,
		Example: "  sreg build --name lab://vsoch/hello:2.0 hello.def -- --fakeroot",
		Args:    needArgs(1, maxArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			recipe, options := args[0], args[1:]
			if at := cmd.ArgsLenAtDash(); at >= 0 && at != 1 || at < 0 && len(options) > 0 {
				return usagef("usage: %s", cmd.UseLine())
			}
			if name == "" {
				name = strings.TrimSuffix(filepath.Base(recipe), filepath.Ext(recipe))
				if filepath.Ext(recipe) != ".def" {
					return usagef("build %s: say what the image is called: --name COLLECTION/IMAGE:TAG", recipe)
				}
			}
			return a.build(cmd, recipe, name, options, force)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the `URI` of the image")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace the tag if it is taken")
	return cmd
}

// build makes an image in a directory of the store, on the disk that the image is to be kept
// on, and moves it from there.
func (a *app) build(cmd *cobra.Command, recipe, name string, options []string, force bool) (err error) {
	recipe, err = existingFile(recipe)
	if err != nil {
		return err
	}
	if _, err := a.options(); err != nil {
		return err
	}
	program, err := a.runtime("build")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(a.settings.Storage, 0o777); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(a.settings.Storage, ".build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	image := filepath.Join(dir, "image.sif")
	if err := a.runBuilder(cmd.Context(), program, slices.Concat([]string{"build"}, options, []string{image, recipe})); err != nil {
		return fmt.Errorf("build %s: %w", recipe, err)
	}
	return a.publish(cmd, []string{image}, name, func(c *control.Client, path, uri string, p catalog.Progress) (verbs.Record, error) {
		return c.Add(cmd.Context(), path, uri, verbs.AddOptions{Move: true, PushOptions: verbs.PushOptions{Force: force}}, p)
	})
}

// endWait is how long a builder that was told to end may take to remove what it has made.
const endWait = 30 * time.Second

// runBuilder runs a program to its end. Its standard output is not the answer of this
// command, so it goes to the standard error.
func (a *app) runBuilder(ctx context.Context, program string, args []string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.err, a.err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endWait
	err := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(program), err)
	}
	return nil
}
