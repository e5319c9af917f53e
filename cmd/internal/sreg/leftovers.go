// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
)

func (a *app) uploadsLeftCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "left REMOTE",
		Short: "List what uploads that were broken off have left at a service",
		Long: `List the uploads that a service has begun and not ended, which may cost money there.
Those that are under way are among them, and those of other programs and machines.

With -o json: an array of {id, path, started}.`,
		Args: needArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withLeftovers(cmd.Context(), args[0], func(_ *backends.Client, all []backends.Leftover) error {
				a.nothing = "nothing is left there"
				return printAll(a, allOf(all), []column[backends.Leftover]{
					{"STARTED", func(l backends.Leftover) string { return moment(l.Started) }, func(l backends.Leftover) any { return l.Started }},
					{"PATH", func(l backends.Leftover) string { return l.Path }, nil},
					{"ID", func(l backends.Leftover) string { return l.ID }, nil},
				}...)
			})
		},
	}
}

func (a *app) uploadsAbandonCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "abandon REMOTE ID...",
		Short: "Remove from a service what an upload has left there",
		Long: `Remove from a service what an upload has left there. "sreg uploads left" shows the IDs.
An upload that is under way fails, whoever makes it.`,
		Args: needArgs(2, math.MaxInt),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withLeftovers(cmd.Context(), args[0], func(c *backends.Client, all []backends.Leftover) error {
				var errs []error
				for _, id := range args[1:] {
					i := slices.IndexFunc(all, func(l backends.Leftover) bool { return l.ID == id })
					if i < 0 {
						errs = append(errs, backends.NotFound("no upload %s (see \"sreg uploads left %s\")", id, args[0]))
						continue
					}
					errs = append(errs, c.Abandon(cmd.Context(), all[i]))
				}
				return errors.Join(errs...)
			})
		},
	}
}

// withLeftovers calls do with what is left at a remote, the oldest first. A running mount is not
// asked: it knows no more.
func (a *app) withLeftovers(ctx context.Context, name string, do func(*backends.Client, []backends.Leftover) error) error {
	o, err := a.options()
	if err != nil {
		return err
	}
	r, err := remoteNamed(o, name)
	if err != nil {
		return a.onlyInMount(ctx, o, name, err)
	}
	p, err := newProbe(ctx, o, r)
	if err != nil {
		return fmt.Errorf("uploads %s: %w", name, err)
	}
	defer p.close()
	var all []backends.Leftover
	for l, err := range p.client.Leftovers(ctx) {
		if err != nil {
			return err
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(x, y backends.Leftover) int { return x.Started.Compare(y.Started) })
	return do(p.client, all)
}
