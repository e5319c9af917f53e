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
	cmd.Flags().StringVar(&key, "key", "", "only labels of this `name`")
	cmd.Flags().StringVar(&value, "value", "", "only labels that say this `text`")
	return cmd
}

// printLabels prints what there is, also where an error ends it.
func (a *app) printLabels(labels iter.Seq2[verbs.Label, error]) error {
	all := []verbs.Label{}
	var failed error
	for l, err := range labels {
		if err != nil {
			failed = err
			break
		}
		all = append(all, l)
	}
	if a.format == asJSON {
		if err := a.printJSON(all); err != nil {
			return err
		}
		return failed
	}
	t := newTable(a.out, "KEY", "VALUE", "URI")
	for _, l := range all {
		t.row(l.Key, l.Value, l.URI)
	}
	if err := t.flush(); err != nil {
		return err
	}
	return failed
}
