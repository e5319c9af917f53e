// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) searchCmd() *cobra.Command {
	var o verbs.SearchOptions
	var endpoints bool
	cmd := &cobra.Command{
		Use:   "search [QUERY…]",
		Short: "Look for images, and ask the registries for them",
		Long: `Look for images by their names, labels and texts, and ask the registries that can
search themselves.

A QUERY is a part of a URI, without regard to case, or with * ? [ in it a pattern for
all of one. It is looked for in labels, help and definition, too, of images that are
on this machine or were inspected. KEY=VALUE and label:KEY ask for a label, and
lab://QUERY for images on one remote. Of several queries each is looked for.

The best come first: by name (whole, beginning, part), by label, by text, and what
only the registry knows why. A remote that cannot be reached costs a line on the
standard error; with --strict, and if it is named, it is a failure.

With --endpoint the places are looked for that a service of many has, such as the
collections of Globus: by words of their names, or without a QUERY those that are
yours. Their ids go into the setting endpoint of the remote.

With -o json: as "sreg images", and match {kind, text}; kind is name, label, text or
registry. With --endpoint: [{remote, id, name, kind, readable}].`,
		Example: "  sreg search samtools\n  sreg search maintainer=vsoch 'lab://*/hello:2.*'\n  sreg search --endpoint tutorial",
		Args:    needArgs(0, maxArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Queries = args
			if endpoints {
				return a.searchEndpoints(cmd.Context(), o.Remote, strings.Join(args, " "))
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				return a.printHits(c.Search(cmd.Context(), o), args)
			})
		},
	}
	cmd.Flags().StringVar(&o.Remote, "in", "", "ask only one `remote`")
	cmd.Flags().BoolVar(&endpoints, "endpoint", false, "look for places that keep images, and not for images")
	cmd.Flags().BoolVar(&o.Strict, "strict", false, "fail if a remote cannot be asked")
	return cmd
}

// A hit is a verbs.Hit that is an image.
type hit struct {
	verbs.Record
	Match verbs.Match `json:"match"`
}

func (a *app) printHits(hits iter.Seq2[verbs.Hit, error], queries []string) error {
	a.nothing = "there are no images"
	if len(queries) > 0 {
		a.nothing = "no image matches " + strings.Join(queries, ", ")
	}
	for _, q := range queries {
		a.marks = append(a.marks, marksOf(q)...)
	}
	images := func(yield func(hit, error) bool) {
		for h, err := range hits {
			if h.Failed != "" {
				a.notice(h.Remote + " was not searched: " + h.Failed)
				continue
			}
			if !yield(hit{h.Record, h.Match}, err) {
				return
			}
		}
	}
	var columns []column[hit]
	for _, c := range recordColumns() {
		of := column[hit]{c.name, func(h hit) string { return c.text(h.Record) }, nil}
		if c.data != nil {
			of.data = func(h hit) any { return c.data(h.Record) }
		}
		columns = append(columns, of)
	}
	columns = append(columns, column[hit]{"MATCH", matchText, nil})
	return printAll(a, images, columns...)
}

// matchText says why an image was found, if its name does not.
func matchText(h hit) string {
	switch h.Match.Kind {
	case verbs.ByName:
		return ""
	case verbs.ByRegistry:
		return "by the registry"
	}
	return h.Match.Text
}

// marksOf returns the parts of a query that are marked where they are found.
func marksOf(q string) []string {
	if _, rest, ok := strings.Cut(q, "://"); ok {
		q = rest
	}
	q = strings.TrimPrefix(q, "label:")
	return strings.FieldsFunc(backends.Printable(q), func(r rune) bool { return strings.ContainsRune("*?[]", r) })
}
