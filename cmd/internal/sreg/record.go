// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) recordCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "record [URL|FILE] URI",
		Short: "Have an image in the catalogue without copying it",
		Long: `With a URL or a file, make URI name what is there: nothing is copied, and it is
read there, by ranges where the server can, when the image is opened. The record is
one of the local catalogue, and "sreg rm" takes it out again.

With a URI alone, have that image of a remote listed from then on, also where the
registry does not list it.`,
		Example: "  sreg record https://example.org/images/tool.sif lab/tool:1.2\n  sreg record docker://library/alpine:3.20",
		Args:    needArgs(1, 2),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			location, uri := "", args[0]
			switch {
			case len(args) == 2 && isWebURL(args[1]) && !isWebURL(args[0]):
				return usagef("record: the URL comes first, then the name: sreg record %s %s", args[1], args[0])
			case len(args) == 2:
				location, uri = args[0], args[1]
			case isWebURL(uri):
				return usagef("record %s: say under which name: sreg record %s COLLECTION/IMAGE:TAG", uri, uri)
			}
			if location != "" && !isWebURL(location) {
				var err error
				if location, err = absolute(location); err != nil {
					return err
				}
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				r, err := c.Record(cmd.Context(), location, uri, force)
				if err != nil {
					return err
				}
				return a.printRecord(r)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace the record that has the name")
	return cmd
}

func isWebURL(text string) bool {
	return strings.HasPrefix(text, "https://") || strings.HasPrefix(text, "http://")
}

func (a *app) mvCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "mv URI PATH",
		Short: "Move an image's file out of the local store, and keep its name",
		Long: `Move the file of an image of the local store to PATH, a directory or the name of a
file that is not there yet. The image keeps its name, and is read where it is. To
give it another name, see "sreg rename".`,
		Example: "  sreg mv vsoch/hello:2.0 /scratch/images/",
		Args:    needArgs(2, 2),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, rest, ok := strings.Cut(args[1], "://"); ok && rest != "" {
				return usagef("mv %s: %s is a name, and no path of a file (to give the image that name: sreg rename)", args[0], args[1])
			}
			to, err := absolute(args[1])
			if err != nil {
				return err
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				if rel, err := filepath.Rel(a.mount, to); a.mount != "" && err == nil && filepath.IsLocal(rel) {
					return usagef("mv %s: %s is in the mount, and no place outside of the store (to give the image another name: sreg rename)", args[0], args[1])
				}
				r, err := c.MoveOut(cmd.Context(), args[0], to)
				if err != nil {
					return err
				}
				return a.printMoved(r, r.Path)
			})
		},
	}
}

func (a *app) renameCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "rename URI NEW-URI",
		Short: "Give an image another name",
		Long: `Give an image another name within its remote, the local store where none is
written. Nothing is copied; not every registry can do that.`,
		Example: "  sreg rename vsoch/hello:2.0 vsoch/greeting:2.0",
		Args:    needArgs(2, 2),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				r, err := c.Rename(cmd.Context(), args[0], args[1], force)
				if err != nil {
					return err
				}
				return a.printMoved(r, r.URI)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace the image that has the name")
	return cmd
}

// printMoved prints what is new of an image.
func (a *app) printMoved(r verbs.Record, now string) error {
	if a.format == asJSON {
		return a.printJSON(r)
	}
	_, err := fmt.Fprintln(a.out, backends.Printable(now))
	return err
}

func (a *app) importCmd() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use:   "import sregistry",
		Short: "Take over the catalogue of the sregistry client for good",
		Long: `Make records of our own of all that the database of the sregistry client knows. It
is not needed any more afterwards, and can go, or be left to the old client.

Nothing that exists is changed or moved, neither files nor records: what is there
already, or was removed here, is passed over, so that it can be done again at any
time. Images whose file is not there any more are named and left out.`,
		Example:   "  sreg import sregistry --dry-run",
		Args:      needArgs(1, 1),
		ValidArgs: []string{"sregistry"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] != "sregistry" {
				return usagef("import %s: only the catalogue of \"sregistry\" can be imported", args[0])
			}
			return a.with(cmd.Context(), func(c *control.Client) error { return a.importClient(cmd.Context(), c, dry) })
		},
	}
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what would be done")
	return cmd
}

func (a *app) importClient(ctx context.Context, c *control.Client, dry bool) error {
	counts := map[string]int{}
	steps := func(yield func(backends.Imported, error) bool) {
		for s, err := range c.ImportClient(ctx, dry) {
			if err == nil {
				if counts[s.What]++; s.What == backends.ImportKnown && a.format != asJSON {
					continue // of a hundred thousand there may be one that is new
				}
			}
			if !yield(s, err) {
				return
			}
		}
	}
	err := printAll(a, steps,
		column[backends.Imported]{name: "URI", text: func(s backends.Imported) string { return backends.URI{Remote: "local", Ref: s.Ref}.String() }},
		column[backends.Imported]{name: "WHAT", text: func(s backends.Imported) string { return s.What }},
		column[backends.Imported]{name: "WHERE", text: func(s backends.Imported) string { return s.Path + s.URL }},
	)
	taken := counts[backends.ImportFile] + counts[backends.ImportElsewhere] + counts[backends.ImportURL]
	will := "taken over"
	if dry {
		will = "to be taken over"
	}
	a.notice(fmt.Sprintf("%d images %s, %d known already, %d without a file", taken, will, counts[backends.ImportKnown], counts[backends.ImportMissing]))
	return err
}
