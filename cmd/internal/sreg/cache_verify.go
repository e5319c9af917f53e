// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// A verifyResult is one image, and whether its bytes match the digest.
type verifyResult struct {
	Key   cache.Key `json:"key"`
	URIs  []string  `json:"uris"`
	Size  int64     `json:"size"`
	State string    `json:"state"` // ok, damaged, unreadable
	Error string    `json:"error,omitempty"`
}

func (a *app) cacheVerifyCmd() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "verify [URI...]",
		Aliases: []string{"check", "fsck"},
		Short:   "Read images in the cache again and compare their digests",
		Long: `Read whole images in the cache again and compare their digests: those that are
named, or all. One that is damaged is dropped, and fetched again when it is asked
for; the exit code is 6 then. Images that are not whole yet are compared when they
are.

` + cacheNames + `

With -o json: an array of {key, uris, size, state, error}; state is ok, damaged or
unreadable.`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("cache verify: names, or --all")
			}
			return a.with(cmd.Context(), func(c *control.Client) error { return a.verifyCache(cmd.Context(), c, args) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all, as without a name")
	return cmd
}

func (a *app) verifyCache(ctx context.Context, c *control.Client, patterns []string) error {
	found, err := cached(ctx, c, patterns)
	if err != nil {
		return err
	}
	var whole []verbs.Cached
	var total int64
	for _, b := range found {
		if b.State == cache.Cached {
			whole = append(whole, b)
			total += b.Size
		}
	}
	results := []verifyResult{}
	var errs []error
	progress, end := a.bar(fmt.Sprintf("verify %d images", len(whole)))
	var before int64
	for _, b := range whole {
		err := c.VerifyCached(ctx, b.Key, func(done, _ int64) {
			if progress != nil {
				progress(before+done, total)
			}
		})
		if ctx.Err() != nil {
			break
		}
		before += b.Size
		if errors.Is(err, fs.ErrInvalid) {
			continue // dropped since
		}
		results = append(results, verdictOf(b, err))
		if err != nil {
			errs = append(errs, err)
		}
	}
	end()
	if err := a.printChecked(results, len(found)-len(whole)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(errs) == 0 {
		return nil
	}
	return exit.WithCode(exit.Code(errors.Join(errs...)), fmt.Errorf("cache verify: %d of %d images are damaged", len(errs), len(results)))
}

// verdictOf makes the result of one image.
func verdictOf(b verbs.Cached, err error) verifyResult {
	r := verifyResult{Key: b.Key, URIs: b.URIs, Size: b.Size, State: "ok"}
	if len(r.URIs) == 0 {
		r.URIs = []string{}
	}
	switch {
	case errors.Is(err, backends.ErrCorrupt):
		r.State, r.Error = "damaged", exit.Text(err)
	case err != nil:
		r.State, r.Error = "unreadable", exit.Text(err)
	}
	return r
}

func (a *app) printChecked(results []verifyResult, others int) error {
	type result = verifyResult
	a.nothing = "there is nothing whole in the cache"
	err := printAll(a, allOf(results),
		column[result]{"STATE", func(r result) string { return r.State }, nil},
		column[result]{"SIZE", func(r result) string { return size(r.Size) }, func(r result) any { return r.Size }},
		column[result]{"IMAGE", func(r result) string { return cachedName(verbs.Cached{Key: r.Key, URIs: r.URIs}) }, nil},
		column[result]{"ERROR", func(r result) string { return r.Error }, nil})
	if err != nil || a.format == asJSON || len(results) == 0 {
		return err
	}
	damaged := 0
	for _, r := range results {
		if r.State != "ok" {
			damaged++
		}
	}
	text := fmt.Sprintf("%d of %d are as they should be", len(results)-damaged, len(results))
	if others > 0 {
		text += fmt.Sprintf("; %d not whole, and not compared", others)
	}
	a.notice(text)
	return nil
}
