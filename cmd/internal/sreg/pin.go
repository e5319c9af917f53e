// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) pinCmd() *cobra.Command {
	var run string
	cmd := a.forEach(&cobra.Command{
		Use:   "pin URI...",
		Short: "Keep images in the cache, or a name's meaning for a run",
		Long: `Keep what is here of an image, and what will be, when the cache makes room. "sreg
pull" brings all of it.

With --for-run a name means what it means now, in the mount and for all commands that
read, however the tag moves, until "sreg unpin --for-run" releases the run: a workflow
sees one image for one name. A name that another run has pinned means to this one what it
means to that one. Nothing in the registry changes.`,
	}, func(c *control.Client, ctx context.Context, uri string) (verbs.Record, error) {
		if run != "" {
			return c.PinFor(ctx, run, uri)
		}
		return c.Pin(ctx, uri)
	})
	cmd.Flags().StringVar(&run, "for-run", "", "keep what the names mean until this `run` is released")
	cmd.PreRunE = checkRunFlag
	return cmd
}

func (a *app) unpinCmd() *cobra.Command {
	var run string
	cmd := a.forEach(&cobra.Command{
		Use:   "unpin URI...",
		Short: "Let the cache drop images again, or release a run",
		Long: `Let the cache drop images again. With --for-run NAME the names that the run has
pinned are released, or those that are given: they mean what their registries say, unless
another run has pinned them too.`,
	}, func(c *control.Client, ctx context.Context, uri string) (verbs.Record, error) {
		return c.Unpin(ctx, uri)
	})
	cmd.Flags().StringVar(&run, "for-run", "", "release this `run`")
	cmd.PreRunE = checkRunFlag
	cmd.Args = func(cmd *cobra.Command, uris []string) error {
		if cmd.Flags().Changed("for-run") {
			return nil
		}
		return needArgs(1, maxArgs)(cmd, uris)
	}
	unpin := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, uris []string) error {
		if run == "" {
			return unpin(cmd, uris)
		}
		return a.with(cmd.Context(), func(c *control.Client) error { return a.release(cmd.Context(), c, run, uris) })
	}
	return cmd
}

// checkRunFlag refuses --for-run="", which a script makes of a variable that is not set.
func checkRunFlag(cmd *cobra.Command, _ []string) error {
	if f := cmd.Flags().Lookup("for-run"); f.Changed && f.Value.String() == "" {
		return usagef("%s: --for-run needs the name of a run", cmd.CommandPath())
	}
	return nil
}

// release releases the URIs of a run, or all of it, and prints them.
func (a *app) release(ctx context.Context, c *control.Client, run string, uris []string) error {
	if len(uris) == 0 {
		uris = []string{""}
	}
	var all []verbs.Record
	var errs []error
	for _, uri := range uris {
		for r, err := range c.Release(ctx, run, uri) {
			if err != nil {
				errs = append(errs, err)
			} else {
				all = append(all, r)
			}
		}
	}
	if a.format == asJSON {
		return errors.Join(append(errs, a.printRecords(allOf(all)))...)
	}
	for _, r := range all {
		errs = append(errs, a.printRecord(r))
	}
	return errors.Join(errs...)
}

// forEach makes cmd call do for each URI.
func (a *app) forEach(cmd *cobra.Command, do func(*control.Client, context.Context, string) (verbs.Record, error)) *cobra.Command {
	cmd.Args = needArgs(1, maxArgs)
	cmd.ValidArgsFunction = a.completeImages
	cmd.RunE = func(cmd *cobra.Command, uris []string) error {
		return a.with(cmd.Context(), func(c *control.Client) error {
			var errs []error
			for _, uri := range uris {
				r, err := do(c, cmd.Context(), uri)
				if err == nil {
					err = a.printRecord(r)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}
