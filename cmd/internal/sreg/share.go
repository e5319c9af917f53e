// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"net/mail"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) shareCmd() *cobra.Command {
	var with string
	cmd := &cobra.Command{
		Use:   "share URI",
		Short: "Let others get at an image",
		Long: `Print a link to an image for whoever you send it to, or, with --with, give one
person access. Not every service can: "sreg remote ls" tells which do.

With --quiet nothing but the link is printed. With -o json: {image, link, with}.`,
		Example: "  sreg share dropbox://pusheen/asaurus:blue",
		Args:    needArgs(1, 1),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if with != "" {
				if _, err := mail.ParseAddress(with); err != nil {
					return usagef("share --with %s: not an e-mail address", with)
				}
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				s, err := c.Share(cmd.Context(), args[0], with)
				if err != nil {
					return err
				}
				return a.printShared(s)
			})
		},
	}
	cmd.Flags().StringVar(&with, "with", "", "who gets access, by `EMAIL`")
	cmd.Flags().StringVar(&with, "email", "", "the same, as sregistry takes it: `EMAIL`")
	return cmd
}

func (a *app) printShared(s verbs.Shared) error {
	switch {
	case a.format == asJSON:
		return a.printJSON(s)
	case a.quiet:
		_, err := fmt.Fprintln(a.out, backends.Printable(s.Link))
		return err
	}
	t := newTable(a.out)
	t.row("image", s.Record.URI)
	if s.With != "" {
		t.row("with", s.With)
	}
	t.row("link", s.Link)
	return t.flush()
}
