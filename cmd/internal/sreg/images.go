// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"iter"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) imagesCmd() *cobra.Command {
	var remote string
	var refresh bool
	cmd := &cobra.Command{
		Use:     "images [QUERY...]",
		Aliases: []string{"ls", "list"},
		Short:   "List the images that are known",
		Long: `List the images that are known, on every remote. What registries have listed
before is shown at once, also offline; --refresh asks them all, down to every
collection.

A QUERY is looked for in the URIs, without regard to case; with * ? [ in it, it
is a pattern for all of one. Of several, an image that any of them finds is listed once.

With -o json: an array of {uri, remote, ref, size, digest, version, modified,
format, state, pinned, labels, url, path}. What is not known is left out; size is
in bytes, -1 if it is not known yet.`,
		Args: needArgs(0, maxArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				a.nothing = nothingKnown(strings.Join(args, " "))
				list := c.ImagesBrief
				if a.format == asJSON {
					list = c.Images
				}
				return a.printRecords(anyQuery(args, func(query string) iter.Seq2[verbs.Record, error] {
					o := verbs.ImagesOptions{Query: query, Remote: remote, Refresh: refresh}
					return a.alsoElsewhere(cmd.Context(), list(cmd.Context(), o), o)
				}))
			})
		},
	}
	cmd.Flags().StringVar(&remote, "in", "", "only those of one `remote`")
	cmd.Flags().BoolVar(&refresh, "refresh", false, "ask the registries first")
	return cmd
}

// anyQuery lists what any of the queries finds, each image once; without one, all.
func anyQuery(queries []string, list func(query string) iter.Seq2[verbs.Record, error]) iter.Seq2[verbs.Record, error] {
	if len(queries) < 2 {
		return list(first(queries))
	}
	return func(yield func(verbs.Record, error) bool) {
		seen := map[string]bool{}
		for _, query := range queries {
			for r, err := range list(query) {
				if err == nil && seen[r.URI] {
					continue
				}
				seen[r.URI] = true
				if !yield(r, err) || err != nil {
					return
				}
			}
		}
	}
}

// nothingKnown is what is said of no images.
func nothingKnown(query string) string {
	if query == "" {
		return `no image is known yet: "sreg images --refresh" asks the registries for all they have`
	}
	return fmt.Sprintf(`no image that is known matches %[1]q: "sreg search %[1]s" asks the registries`, query)
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
