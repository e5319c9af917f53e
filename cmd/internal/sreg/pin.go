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
	return a.forEach(&cobra.Command{
		Use:   "pin URI...",
		Short: "Keep images in the cache",
		Long: `Keep what is here of an image, and what will be, when the cache makes room. "sreg
pull" brings all of it.`,
	}, (*control.Client).Pin)
}

func (a *app) unpinCmd() *cobra.Command {
	return a.forEach(&cobra.Command{
		Use:   "unpin URI...",
		Short: "Let the cache drop images again",
		Long: `Take back what "sreg pin" said. What is here of the image stays until the cache needs
its room.`,
	}, (*control.Client).Unpin)
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
