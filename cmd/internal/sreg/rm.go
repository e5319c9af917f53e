// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

func (a *app) rmCmd() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "rm URI...",
		Aliases: []string{"delete"},
		Short:   "Delete images from their registries",
		Long: `Delete images where they are: without a remote in the URI, in the local store
alone. Outside of it you are asked first; a script says --yes. With a version in
the URI that version is deleted, or nothing if the tag means another one.`,
		Args: needArgs(1, maxArgs),

		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				var errs []error
				for _, uri := range args {
					errs = append(errs, a.remove(cmd.Context(), c, deletion, uri, yes))
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&yes, "force", "f", false, "do not ask, as sregistry takes it")
	a.dryRunFlag(cmd)
	return cmd
}

// A removal takes a name away.
type removal struct {
	word string // of the command
	asks string // the question, with the URI for %s
	does func(c *control.Client, ctx context.Context, uri, means string) (verbs.Record, error)
}

var deletion = removal{"rm", "Delete %s", (*control.Client).Remove}

func (a *app) remove(ctx context.Context, c *control.Client, o removal, uri string, yes bool) error {
	var means string
	if !yes || a.onlySays {
		r, err := c.Removable(ctx, uri)
		if err != nil {
			return err
		}
		if a.onlySays {
			a.notice("nothing is done: --dry-run only says what it would be done to")
			return a.printRecord(r)
		}
		if r.Remote != config.Local {
			if err := a.confirm(ctx, o, r); err != nil {
				return err
			}
		}
		uri, means = r.URI, r.Version
	}
	gone, err := o.does(c, ctx, uri, means)
	if err != nil {
		return err
	}
	return a.printRecord(gone)
}

// errDeclined is the answer "no".
var errDeclined = errors.New("not deleted")

func (a *app) confirm(ctx context.Context, o removal, r verbs.Record) error {
	if !term.Is(a.in) {
		return usagef("%s %s: deletes from a registry: say --yes", o.word, r.URI)
	}
	question := fmt.Sprintf(o.asks, backends.Printable(r.URI))
	text, err := a.ask(ctx, fmt.Sprintf("%s (%s, %s)? [y/N] ", question, size(r.Size), backends.Printable(r.Digest)))
	switch strings.ToLower(text) {
	case "y", "yes":
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%s %s: %w", o.word, r.URI, errDeclined)
}
