// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"iter"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) labelsCmd() *cobra.Command {
	var key, value string
	cmd := &cobra.Command{
		Use:   "labels [REMOTE]",
		Short: "List the labels of images",
		Long: `List the labels that registries tell in their listings, and those within the
images whose bytes are on this machine. Nothing is downloaded. A Singularity
Registry Server looks through all of its images: sreg search --in REMOTE KEY=VALUE.

With -o json: an array of {key, value, uri}.`,
		Example: "  sreg labels --key maintainer",
		Args:    needArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				return a.printLabels(c.Labels(cmd.Context(), verbs.LabelsOptions{Key: key, Value: value, Remote: first(args)}))
			})
		},
	}
	cmd.Flags().StringVarP(&key, "key", "k", "", "only labels of this `name`")
	cmd.Flags().StringVarP(&value, "value", "v", "", "only labels that say this `text`")
	return cmd
}

func (a *app) printLabels(labels iter.Seq2[verbs.Label, error]) error {
	a.nothing = "no such label is known: an image's own labels are, once it is on this machine"
	return printAll(a, labels,
		column[verbs.Label]{"KEY", func(l verbs.Label) string { return l.Key }, nil},
		column[verbs.Label]{"VALUE", func(l verbs.Label) string { return l.Value }, nil},
		column[verbs.Label]{"URI", func(l verbs.Label) string { return l.URI }, nil})
}
