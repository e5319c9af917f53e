// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// A cacheClean is one run of sreg cache clean.
type cacheClean struct {
	*app
	days         int // -1: of any age
	partial, all bool
	dryRun, yes  bool
	single       bool // no argument is a pattern: an image that stays is an error

	result struct {
		Removed []cleanResult `json:"removed"`
		Kept    []cleanResult `json:"kept"`
		Freed   int64         `json:"freed"` // bytes of the disk; with --dry-run, that would be
	}
}

// A cleanResult is one image, and what became of it.
type cleanResult struct {
	Key   cache.Key `json:"key"`
	URIs  []string  `json:"uris"`
	Bytes int64     `json:"bytes"`         // of the disk
	Why   string    `json:"why,omitempty"` // it was kept

	name string
}

func (a *app) cacheCleanCmd() *cobra.Command {
	k := &cacheClean{app: a}
	cmd := &cobra.Command{
		Use:     "clean [URI...]",
		Aliases: []string{"rm", "prune"},
		Short:   "Remove images from the cache",
		Long: `Remove images from the cache: those that are named, or all; of these those that
were not used for some days, or are not whole. Images that are pinned or open stay.
--all alone removes what registries told (manifests), too.
Nothing is deleted on a registry, nor in the local store.

On a terminal you are asked first; a script says --yes.

` + cacheNames + `

With -o json: {removed, kept, freed}.`,
		Example: `  sreg cache clean --days 30
  sreg cache clean 'lab://vsoch/*' --partial --dry-run`,
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("days") {
				k.days = -1
			} else if k.days < 0 {
				return usagef("cache clean --days %d: a number of days", k.days)
			}
			if len(args) == 0 && !k.all && !k.partial && k.days < 0 {
				return usagef("cache clean: say what: names, --days N, --partial or --all")
			}
			if len(args) > 0 && k.all {
				return usagef("cache clean: names, or --all")
			}
			k.single = len(args) > 0 && !strings.ContainsAny(strings.Join(args, ""), "*?[") && !hasFolder(args)
			return a.with(cmd.Context(), func(c *control.Client) error { return k.run(cmd.Context(), c, args) })
		},
	}
	fs := cmd.Flags()
	fs.IntVarP(&k.days, "days", "D", 0, "those that were not used for `N` days")
	fs.BoolVar(&k.partial, "partial", false, "those that are not whole")
	fs.BoolVar(&k.all, "all", false, "all")
	fs.BoolVarP(&k.dryRun, "dry-run", "n", false, "only show what would be removed")
	fs.BoolVarP(&k.yes, "yes", "y", false, "do not ask")
	fs.BoolVarP(&k.yes, "force", "f", false, "do not ask, as apptainer has it")
	_ = fs.MarkHidden("force")
	return cmd
}

func hasFolder(args []string) bool {
	for _, arg := range args {
		if strings.HasSuffix(arg, "/") {
			return true
		}
	}
	return false
}

func (k *cacheClean) run(ctx context.Context, c *control.Client, patterns []string) error {
	all, err := cached(ctx, c, patterns)
	if err != nil {
		return err
	}
	leaving, kept := k.split(all)
	k.result.Removed, k.result.Kept, k.result.Freed = []cleanResult{}, kept, 0
	if !k.dryRun && !k.yes && len(leaving) > 0 {
		if err := k.confirm(ctx, leaving); err != nil {
			return err
		}
	}
	var errs []error
	for _, b := range leaving {
		if ctx.Err() != nil {
			break // report prints what was removed until now
		}
		errs = append(errs, k.remove(ctx, c, b))
	}
	if k.all && !k.partial && k.days < 0 && !k.dryRun && ctx.Err() == nil {
		freed, err := c.RemoveCached(ctx, cache.Metadata)
		k.result.Freed += freed
		errs = append(errs, err)
	}
	return k.report(ctx, errors.Join(errs...))
}

// split returns the images to remove, and those that match the flags but must stay
// because they are pinned or open. The mount refuses to remove an image that is opened
// between this and remove.
func (k *cacheClean) split(all []verbs.Cached) (leaving, kept []cleanResult) {
	kept = []cleanResult{}
	before := time.Now().AddDate(0, 0, -max(k.days, 0))
	for _, b := range all {
		switch {
		case b.State == cache.Remote, k.partial && b.State != cache.Partial, k.days >= 0 && b.Used.After(before):
			continue
		}
		it := cleanResult{Key: b.Key, URIs: b.URIs, Bytes: b.OnDisk, name: cachedName(b)}
		if n := len(b.URIs) - 1; n > 0 {
			it.name += fmt.Sprintf(" (and %d more names)", n)
		}
		switch {
		case b.Pinned:
			it.Why = "pinned"
		case b.Open > 0:
			it.Why = "open"
		}
		if it.Why != "" {
			kept = append(kept, it)
		} else {
			leaving = append(leaving, it)
		}
	}
	return leaving, kept
}

func (k *cacheClean) confirm(ctx context.Context, leaving []cleanResult) error {
	if !term.Is(k.in) {
		return usagef("cache clean: removes %d images: say --yes (or --dry-run)", len(leaving))
	}
	var n int64
	for _, b := range leaving {
		n += b.Bytes
	}
	what := backends.Printable(leaving[0].name)
	if len(leaving) > 1 {
		what = fmt.Sprintf("%d images", len(leaving))
	}
	text, err := k.ask(ctx, fmt.Sprintf("Remove %s (%s) from the cache? [y/N] ", what, size(n)))
	switch strings.ToLower(text) {
	case "y", "yes":
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	return errors.New("cache clean: nothing removed")
}

// remove removes one image, unless it was opened meanwhile: then it is kept.
func (k *cacheClean) remove(ctx context.Context, c *control.Client, b cleanResult) error {
	freed := b.Bytes
	if !k.dryRun {
		var err error
		if freed, err = c.RemoveCached(ctx, b.Key); errors.Is(err, cache.ErrInUse) {
			b.Why = exit.Text(err)
			k.result.Kept = append(k.result.Kept, b)
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	b.Bytes = freed
	k.result.Removed = append(k.result.Removed, b)
	k.result.Freed += freed
	return nil
}

// report prints what was done. An image that was named and stays is an error; one that
// only matched a pattern is not.
func (k *cacheClean) report(ctx context.Context, err error) error {
	if k.format == asJSON {
		if err := k.printJSON(k.result); err != nil {
			return err
		}
	} else if err := k.print(); err != nil {
		return err
	}
	if err == nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	if err == nil && k.single && len(k.result.Kept) > 0 {
		b := k.result.Kept[0]
		err = fmt.Errorf("cache clean: %w: %s is %s", cache.ErrInUse, b.name, b.Why)
	}
	return err
}

func (k *cacheClean) print() error {
	t := newTable(k.out)
	for _, b := range k.result.Removed {
		t.row(map[bool]string{false: "removed", true: "would go"}[k.dryRun], size(b.Bytes), b.name)
	}
	for _, b := range k.result.Kept {
		t.row("kept", size(b.Bytes), b.name, b.Why)
	}
	if err := t.flush(); err != nil {
		return err
	}
	text := "%s freed: %d removed, %d kept"
	if k.dryRun {
		text = "%s would be freed: %d would go, %d stay"
	}
	k.notice(fmt.Sprintf(text, size(k.result.Freed), len(k.result.Removed), len(k.result.Kept)))
	return nil
}
