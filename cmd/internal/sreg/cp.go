// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) cpCmd() *cobra.Command {
	var o verbs.CopyOptions
	cmd := &cobra.Command{
		Use:     "cp URI URI",
		Aliases: []string{"copy"},
		Short:   "Copy an image from one registry to another",
		Long: `Copy an image, to another registry or to another name. Where the services can, they do
it among themselves, and nothing travels: within an OCI registry, a Dropbox, a
directory. Else the bytes go from the one to the other without a file here.

A container image that is copied from one OCI registry to another stays one: its
manifest, its digest and its layers are the same, and only layers that are missing
travel. That is the image for this architecture, or with --all for each that the tag
has. Elsewhere it is the SIF that it is in the mount.

The second URI may end with a slash: then it is a collection, or a remote (backup://),
in which the image keeps its name. If it is interrupted, run it again: what is there is
not sent again, where the service can take up an upload.`,
		Example: `  sreg cp docker://library/alpine:3.20 lab://mirror/alpine:3.20
  sreg cp lab://vsoch/hello:2.0 dropbox://vsoch/
  sreg cp lab://vsoch/hello:2.0 lab://vsoch/hello:stable --force`,
		Args:              needArgs(2, 2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.DryRun = a.onlySays
			return a.with(cmd.Context(), func(c *control.Client) error {
				return a.copyImage(cmd.Context(), c, args[0], args[1], o)
			})
		},
	}
	a.writingFlags(cmd, &o.PushOptions)
	cmd.Flags().BoolVar(&o.All, "all", false, "copy a container image for all its architectures")
	return cmd
}

func (a *app) copyImage(ctx context.Context, c *control.Client, from, to string, o verbs.CopyOptions) error {
	if o.DryRun {
		done, err := c.Copy(ctx, from, to, o, nil)
		if err != nil {
			return err
		}
		return a.wouldBe(ctx, c, done.Image)
	}
	progress, end := a.transfer(transfer{done: "copied", what: to, kept: to + " is as it was; the same command goes on from where the service can"})
	done, err := c.Copy(ctx, from, to, o, progress)
	end(ctx, err)
	switch {
	case err != nil:
		return err
	case a.format == asJSON:
		return a.printJSON(done)
	case done.Here:
		a.notice(done.Image.URI + " was that image before")
	}
	return a.printRecord(done.Image)
}
