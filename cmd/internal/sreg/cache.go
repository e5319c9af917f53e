// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
)

func (a *app) cacheCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show, check and clean the cache of pulled images",
		Long: `What was read or pulled of images is kept in the cache, which drops what was used
longest ago when it gets too large (cache_size, min_free). It may be cleaned at any
time, also while mounted: what is missing is fetched again.

"sreg pin" keeps images in it, "sreg warm" and "sreg pull" bring whole ones.`,
		Args: cobra.ArbitraryArgs,
		RunE: group,
	}
	cmd.AddCommand(a.cacheListCmd(), a.cacheCleanCmd(), a.cacheVerifyCmd(), a.cacheUseCmd())
	return cmd
}

// cacheNames is the help of the cache commands on naming images.
const cacheNames = `Images are named by a URI, a pattern with * ? [, a collection (lab://vsoch/), or by
the digest that "sreg cache ls" shows.`

func (a *app) cacheListCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "ls [URI...]",
		Aliases: []string{"list"},
		Short:   "List what is in the cache, and what is pinned",
		Long: `List what is in the cache, with all names that mean it now, and what is pinned and
not here yet. An image that no known name means has its digest.

` + cacheNames + `

With -o json: an array of {key, uris, remotes, state, size, have, on_disk, pinned,
open, requests, used, verified, refused, error}; sizes are in bytes.`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				a.nothing = "the cache is empty"
				return printAll(a, c.Cached(cmd.Context(), args), cachedColumns()...)
			})
		},
	}
}

// cached returns the images that match the patterns; with an error, those until then.
func cached(ctx context.Context, c *control.Client, patterns []string) ([]verbs.Cached, error) {
	all := []verbs.Cached{}
	for b, err := range c.Cached(ctx, patterns) {
		if err != nil {
			return all, err
		}
		all = append(all, b)
	}
	return all, nil
}

func firstError(errs ...error) error { return cmp.Or(errs...) }

func cachedColumns() []column[verbs.Cached] {
	type blob = verbs.Cached
	return []column[blob]{
		{"STATE", cachedState, nil},
		{"SIZE", func(b blob) string { return size(b.Size) }, func(b blob) any { return b.Size }},
		{"HERE", func(b blob) string { return percent(b.Have, b.Size) }, func(b blob) any { return b.Have }},
		{"USED", func(b blob) string { return moment(b.Used) }, func(b blob) any { return b.Used }},
		{"IMAGE", cachedNames, func(b blob) any { return cachedName(b) }},
	}
}

// cachedNames are all names of a blob, and what is wrong with it: a line for each.
func cachedNames(b verbs.Cached) string {
	lines := []string{cachedName(b)}
	if len(b.URIs) > 1 {
		lines = append(lines, b.URIs[1:]...)
	}
	if b.Error != "" {
		lines = append(lines, "("+b.Error+")")
	}
	return strings.Join(lines, lineBreak)
}

// cachedState describes a blob in a word or two.
func cachedState(b verbs.Cached) string {
	state := string(b.State)
	if !b.Refused.IsZero() {
		state = "refused"
	}
	for _, s := range []struct {
		name string
		is   bool
	}{{"pinned", b.Pinned}, {"open", b.Open > 0}, {"fetching", b.Requests > 0}} {
		if s.is {
			state += "," + s.name
		}
	}
	return state
}

// cachedName is the first name of a blob, or else as much of its digest as the
// commands take.
func cachedName(b verbs.Cached) string {
	if len(b.URIs) > 0 {
		return b.URIs[0]
	}
	return shortKey(b.Key)
}

func shortKey(key cache.Key) string {
	kind, digits, _ := strings.Cut(string(key), ":")
	return kind + ":" + digits[:min(len(digits), 16)]
}

// percent formats have of size. It never says 100% unless all is here.
func percent(have, size int64) string {
	if size <= 0 {
		return ""
	}
	percent := have * 100 / size
	if have < size {
		percent = min(percent, 99)
	}
	return strconv.FormatInt(percent, 10) + "%"
}

func (a *app) cacheUseCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "du",
		Aliases: []string{"usage", "df"},
		Short:   "Show what the cache takes of its disk, and what it may",
		Long: `Show the bytes of the disk that the cache takes: by state, and by remote. An image
that several remotes have is there once.

With -o json: {dir, used, limit, free, min_free, cached, partial, metadata, pinned,
open, refused, remotes, uploads}, in bytes.`,
		Args: needArgs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(c *control.Client) error {
				use, err := c.CacheUse(cmd.Context())
				if err != nil {
					return err
				}
				if a.format == asJSON {
					return a.printJSON(use)
				}
				return printUse(a.out, use)
			})
		},
	}
}

func printUse(w io.Writer, u verbs.CacheUse) error {
	t := newTable(w)
	t.row("cache", u.Dir)
	limit := "no limit but the disk's"
	if u.Limit > 0 {
		limit = "of " + size(u.Limit) + " (cache_size)"
	}
	t.row("used", size(u.Used), limit)
	if u.Free >= 0 {
		t.row("free", size(u.Free), "on its disk, "+size(u.MinFree)+" of it to be left (min_free)")
	}
	for _, r := range []struct {
		name string
		use  verbs.Use
	}{{"whole", u.Cached}, {"partial", u.Partial}, {"pinned", u.Pinned}, {"open", u.Open}, {"uploads", u.Uploads}} {
		t.row(r.name, size(r.use.Bytes), plural(r.use.Blobs, "image"))
	}
	t.row("metadata", size(u.Metadata), "manifests and the like")
	if u.Refused > 0 {
		t.row("refused", "", plural(u.Refused, "image")+", as what came did not match the digest (sreg cache ls)")
	}
	if err := t.flush(); err != nil || len(u.Remotes) == 0 {
		return err
	}
	fmt.Fprintln(w)
	t = newTable(w, "REMOTE", "SIZE", "IMAGES")
	for _, r := range u.Remotes {
		name := strings.Join(r.Remotes, ", ")
		if name == "" {
			name = "(no known name)"
		}
		t.row(name, size(r.Bytes), strconv.Itoa(r.Blobs))
	}
	return t.flush()
}
