// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

func (a *app) diffCmd() *cobra.Command {
	var o verbs.DiffOptions
	cmd := &cobra.Command{
		Use:   "diff URI URI",
		Short: "Show in what two images differ",
		Long: `Show in what the second image is not the first: digest, size, labels, scripts,
definition, environment, configuration, layers, and files. Files are compared by the
tables of the images, as rsync does, by type, permissions, owner, size and time; their
contents are not read. Only the tables are fetched; those of a Docker or OCI image that
is not here take its layers.

The exit code is 0 if there is no difference, 1 if there is one.

With -o json: an array of {change, what, name, old, new, old_file, new_file}; change is
added, removed, changed, or unknown for what could not be compared.`,
		Args: needArgs(2, 2),

		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				n := 0
				all := func(yield func(verbs.Change, error) bool) {
					for change, err := range c.Diff(cmd.Context(), args[0], args[1], o) {
						if err == nil {
							n++
						}
						if !yield(change, err) {
							return
						}
					}
				}
				a.nothing = "there is no difference"
				if err := printAll(a, all, diffColumns()...); err != nil || n == 0 {
					return err
				}
				return exit.ErrDifferent
			})
		},
	}
	cmd.Flags().BoolVar(&o.NoFiles, "no-files", false, "compare what the images say of themselves, and not their files")
	return cmd
}

func diffColumns() []column[verbs.Change] {
	return []column[verbs.Change]{
		{"CHANGE", func(c verbs.Change) string { return c.Change }, nil},
		{"WHAT", func(c verbs.Change) string { return c.What }, nil},
		{"NAME", func(c verbs.Change) string { return short(c.Name) }, func(c verbs.Change) any { return c.Name }},
		{"OLD", func(c verbs.Change) string { return excerpt(c.Old) }, func(c verbs.Change) any { return c.Old }},
		{"NEW", func(c verbs.Change) string { return excerpt(c.New) }, func(c verbs.Change) any { return c.New }},
	}
}

// maxExcerpt is how many characters of a text are shown in a cell.
const maxExcerpt = 60

// excerpt is a text for a cell; -o json has all of it.
func excerpt(text string) string {
	if n := strings.Count(strings.TrimSpace(text), "\n"); n > 0 {
		return fmt.Sprintf("%d lines", n+1)
	}
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "sha256:") {
		return short(text)
	}
	if all := []rune(text); len(all) > maxExcerpt {
		return string(all[:maxExcerpt-1]) + "…"
	}
	return text
}
