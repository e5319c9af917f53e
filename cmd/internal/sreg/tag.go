// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) tagsCmd() *cobra.Command {
	var o verbs.TagsOptions
	var history bool
	cmd := &cobra.Command{
		Use:   "tags URI",
		Short: "List the tags and versions of an image",
		Long: `List the tags of an image, and the older versions that its registry keeps under
them. A tag in the URI is of no matter.

The registry is asked once for each page of its list. Many tell no more than names
there: the digest, size and date of a tag are then those that are known from before,
or a question mark; --long asks for each. Where the registry cannot be reached, what
is known is listed.

With --history: what the tags have meant, the newest first, and when that was first and
last seen here. Only tags that were opened, pulled or pinned have a history; with a tag
in the URI only that of this one is shown.

With -o json: an array as that of "sreg images", or of {uri, tag, version, digest, size,
first, last}.`,
		Args: needArgs(1, 1),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if history && o.Long {
				return usagef("sreg tags: --history asks no registry: leave out --long")
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				if history {
					a.nothing = "nothing was seen: tags have a history from when they are opened, pulled or pinned"
					return printAll(a, c.History(cmd.Context(), args[0]), historyColumns()...)
				}
				found, err := c.Tags(cmd.Context(), args[0], o)
				if err != nil {
					return err
				}
				if found.Unasked != "" {
					a.notice("this is what is known: " + found.Unasked)
				}
				return printAll(a, allOf(found.Tags), tagColumns()...)
			})
		},
	}
	cmd.Flags().BoolVarP(&o.Long, "long", "l", false, "ask for what the registry's list does not tell of each tag")
	cmd.Flags().BoolVar(&history, "history", false, "show what the tags have meant")
	return cmd
}

func historyColumns() []column[verbs.Meaning] {
	return []column[verbs.Meaning]{
		{"URI", func(m verbs.Meaning) string {
			base, _, _ := strings.Cut(m.URI, "@")
			return base + "@" + short(m.Version)
		}, func(m verbs.Meaning) any { return m.URI }},
		{"FIRST", func(m verbs.Meaning) string { return moment(m.First) }, func(m verbs.Meaning) any { return m.First }},
		{"LAST", func(m verbs.Meaning) string { return moment(m.Last) }, func(m verbs.Meaning) any { return m.Last }},
		{"SIZE", func(m verbs.Meaning) string { return size(m.Size) }, func(m verbs.Meaning) any { return m.Size }},
	}
}

// tagColumns are those of a list of tags. What a person sees of a digest is enough to name
// the version: @sha256:0123456789ab.
func tagColumns() []column[verbs.Record] {
	return []column[verbs.Record]{
		{"URI", func(r verbs.Record) string { return shortURI(r) }, func(r verbs.Record) any { return r.URI }},
		{"DIGEST", func(r verbs.Record) string { return short(r.Digest) }, func(r verbs.Record) any { return r.Digest }},
		{"SIZE", func(r verbs.Record) string { return size(r.Size) }, func(r verbs.Record) any { return r.Size }},
		{"STATE", state, nil},
		{"MODIFIED", func(r verbs.Record) string { return date(r.Modified) }, func(r verbs.Record) any { return r.Modified }},
	}
}

// shortDigits is how many digits of a digest are shown to a person.
const shortDigits = 12

// short is a digest, or another version, for a table.
func short(version string) string {
	i := strings.LastIndexByte(version, ':')
	if i < 0 || len(version) <= i+1+shortDigits {
		return version
	}
	return version[:i+1+shortDigits]
}

// shortURI is the URI with a short version.
func shortURI(r verbs.Record) string {
	ref := r.Ref
	ref.Version = short(ref.Version)
	return backends.URI{Remote: r.Remote, Ref: ref}.String()
}

func (a *app) tagCmd() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "tag URI TAG...",
		Short: "Give an image more tags",
		Long: `Make other tags of the same image mean what URI means: with a version in it
exactly that one. No bytes travel. Without a remote in the URI the local store is
meant. A tag that means another image is moved only with --force.`,
		Args: needArgs(2, maxArgs),

		ValidArgsFunction: a.completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				var errs []error
				for _, tag := range args[1:] {
					r, err := c.Tag(cmd.Context(), args[0], tag, force)
					if err == nil {
						err = a.printRecord(r)
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "move a tag that means another image")
	return cmd
}

func (a *app) untagCmd() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "untag URI...",
		Short: "Take tags away and keep the images",
		Long: `Take tags away. What they meant stays under its digest, where the service keeps what
has no tag; where an image is kept no longer than its tag, "sreg rm" deletes both. You
are asked first; a script says --yes.`,
		Args: needArgs(1, maxArgs),

		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				o := removal{"untag", "Take the tag from %s", (*control.Client).Untag}
				var errs []error
				for _, uri := range args {
					errs = append(errs, a.remove(cmd.Context(), c, o, uri, yes))
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	a.dryRunFlag(cmd)
	return cmd
}
