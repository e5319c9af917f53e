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
	cmd := &cobra.Command{
		Use:     "rm URI...",
		Aliases: []string{"delete"},
		Short:   "Delete images from their registries",
		Long: `Delete images where they are: without a remote in the URI, in the local store
alone. Outside of it you are asked first; a script says --yes. With a version in
the URI that version is deleted, or nothing if the tag means another one.

Of an image that was recorded, or moved out of the store, the record goes and the
file stays: see "sreg rmi".`,
	}
	return a.removing(cmd, removal{"rm", "Delete %s", (*control.Client).Remove})
}

func (a *app) rmiCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rmi URI...",
		Short: "Delete images and their files, wherever these are",
		Long: `As "sreg rm"; and the file of an image that is outside of the local store, because
it was recorded or moved there, is deleted too.`,
	}
	return a.removing(cmd, removal{"rmi", "Delete %s and its file", (*control.Client).RemoveFile})
}

// A removal takes a name away.
type removal struct {
	word string // of the command
	asks string // the question, with the URI for %s
	does func(c *control.Client, ctx context.Context, uri, means string) (verbs.Record, error)
}

// removing completes a command that deletes images.
func (a *app) removing(cmd *cobra.Command, o removal) *cobra.Command {
	var yes bool
	cmd.Args = needArgs(1, maxArgs)
	cmd.ValidArgsFunction = a.completeImages
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.with(cmd.Context(), func(c *control.Client) error {
			var errs []error
			for _, uri := range args {
				errs = append(errs, a.remove(cmd.Context(), c, o, uri, yes))
			}
			return errors.Join(errs...)
		})
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&yes, "force", "f", false, "do not ask, as sregistry takes it")
	a.dryRunFlag(cmd)
	return cmd
}

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
