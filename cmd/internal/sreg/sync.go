// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

const syncHelp = `Copy what one place has and another one has not, or has another image of: from a
remote or a collection to another one, without a second argument to the local store.
Both registries are asked what they have, and digests are compared first: images that
are equal are not read. What is copied, is copied as by "sreg cp".

A place is REMOTE, REMOTE/COLLECTION, or a pattern as "sreg warm" takes it:
lab://vsoch/ is all of that collection, 'lab://bio/*' what matches. Where the second
place is a remote, the collections keep their names; where it is a collection, what is
below the first one comes to be below it.

If it is interrupted, run it again: what is there is not sent again. One image that fails
does not keep the others from being copied: the failures are listed at the end, and
the exit code is that of the worst.

With --delete, images that the second place has and the first one has not are deleted
there. You are asked first; a script says --yes. Nothing is deleted if the first place
could not be listed whole, or has no image at all.`

type syncOptions struct {
	verbs.CompareOptions
	all     bool
	dryRun  bool
	yes     bool
	workers int
}

// A syncRun is one run of sreg sync. Its workers share the fields below mu.
type syncRun struct {
	*app
	syncOptions
	client *control.Client
	found  map[verbs.Action][]verbs.Difference

	mu     sync.Mutex // guards the fields below
	done   []synced
	counts map[string]int // by synced.Result
	errs   []error
	failed []string // the texts of errs
}

// A synced image is one with what became of it.
type synced struct {
	verbs.Difference
	Result string `json:"result"` // one of the words below
	Error  string `json:"error,omitempty"`
	Code   int    `json:"code,omitempty"`
}

// What became of an image.
const (
	wasCopied   = "copied"
	wasReplaced = "replaced"
	wasSame     = "same"
	wasDeleted  = "deleted"
	wasLeft     = "left" // nothing was to be done, or with --dry-run was done
	wasFailed   = "failed"
)

func (a *app) syncCmd() *cobra.Command {
	var o syncOptions
	cmd := &cobra.Command{
		Use:   "sync REMOTE[/COLLECTION] [REMOTE[/COLLECTION]]",
		Short: "Copy all that a registry has, and another one has not",
		Long:  syncHelp,
		Example: `  sreg sync lab/vsoch
  sreg sync lab backup --dry-run
  sreg sync 'lab://bio/*' backup/mirror/bio --delete`,
		Args:              needArgs(1, 2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.workers < 1 || o.workers > maxWarmWorkers {
				return usagef("sync --jobs %d: from 1 to %d", o.workers, maxWarmWorkers)
			}
			to := ""
			if len(args) == 2 {
				to = args[1]
			}
			return a.with(cmd.Context(), func(c *control.Client) error {
				run := syncRun{app: a, syncOptions: o, client: c, found: map[verbs.Action][]verbs.Difference{}, counts: map[string]int{}}
				return run.run(cmd.Context(), args[0], to)
			})
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.Delete, "delete", false, "delete there what is not here any more")
	fs.BoolVarP(&o.dryRun, "dry-run", "n", false, "say what would be done, and do nothing")
	fs.BoolVarP(&o.yes, "yes", "y", false, "do not ask before images are deleted")
	fs.BoolVar(&o.all, "all", false, "copy container images for all their architectures")
	fs.IntVarP(&o.workers, "jobs", "j", 3, "how many images to copy at once")
	return cmd
}

func (s *syncRun) run(ctx context.Context, from, to string) error {
	for d, err := range s.client.Compare(ctx, from, to, s.CompareOptions) {
		if err != nil {
			s.fail("", err)
			break
		}
		s.found[d.Action] = append(s.found[d.Action], d)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	deletes := s.found[verbs.ActionDelete]
	if len(s.errs) > 0 && len(deletes) > 0 {
		s.notice("nothing is deleted, as not all is known")
		deletes = nil
	}
	for _, d := range s.found[verbs.ActionSame] {
		s.note(d, wasSame, nil)
	}
	copies := append(s.found[verbs.ActionCopy], s.found[verbs.ActionReplace]...)
	left := append(s.found[verbs.ActionExtra], s.found[verbs.ActionSkip]...)
	if s.dryRun {
		left = append(append(left, copies...), deletes...)
	} else if err := s.confirmDeletes(ctx, deletes); err != nil {
		return err
	}
	for _, d := range left {
		s.note(d, wasLeft, nil)
	}
	if s.dryRun {
		return s.report(ctx, from, 0)
	}
	s.copyAll(ctx, copies)
	for _, d := range deletes {
		if ctx.Err() == nil {
			_, err := s.client.Remove(ctx, d.To.URI, d.To.Version)
			s.note(d, wasDeleted, err)
		}
	}
	return s.report(ctx, from, len(copies))
}

func (s *syncRun) confirmDeletes(ctx context.Context, deletes []verbs.Difference) error {
	if len(deletes) == 0 || s.yes {
		return nil
	}
	if !term.Is(s.in) {
		return usagef("sync --delete: deletes %s at %s: say --yes", plural(len(deletes), "image"), deletes[0].To.Remote)
	}
	for _, d := range deletes {
		fmt.Fprintf(s.err, "  %s (%s)\n", backends.Printable(d.To.URI), size(d.To.Size))
	}
	text, err := s.ask(ctx, fmt.Sprintf("Delete %s at %s? [y/N] ", plural(len(deletes), "image"), deletes[0].To.Remote))
	switch strings.ToLower(text) {
	case "y", "yes":
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("sync: %w, and nothing was copied", errDeclined)
}

// copyAll copies images, several at once.
func (s *syncRun) copyAll(ctx context.Context, copies []verbs.Difference) {
	show, end := s.transfer(transfer{done: "copied", what: plural(len(copies), "image")})
	defer func() { end(ctx, nil) }()
	total := &syncProgress{show: show}
	for _, d := range copies {
		total.all = addCapped(total.all, d.From.Size)
	}
	var g errgroup.Group
	g.SetLimit(s.workers)
	for _, d := range copies {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			return backends.Guard(s.log(), func() error {
				s.copyOne(ctx, d, total.part(d.From.Size))
				return nil
			})
		})
	}
	_ = backends.Raise(g.Wait()) // the errors are kept in s
}

// A syncProgress is that of several images in one bar.
type syncProgress struct {
	show catalog.Progress // nil if there is no bar

	mu       sync.Mutex // guards the fields below
	sum, all int64      // bytes of images
}

// part returns the progress of an image of that size. Of a container image other bytes travel.
func (p *syncProgress) part(size int64) catalog.Progress {
	if p.show == nil || size <= 0 {
		return nil
	}
	var last int64
	return func(done, total int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		now := int64(float64(min(done, total)) / float64(max(total, 1)) * float64(size))
		p.sum += now - last
		last = now
		p.show(p.sum, p.all)
	}
}

func (s *syncRun) copyOne(ctx context.Context, d verbs.Difference, p catalog.Progress) {
	if ctx.Err() != nil {
		return
	}
	got, err := s.client.Copy(ctx, d.From.URI, d.To.URI, verbs.CopyOptions{PushOptions: verbs.PushOptions{Force: true}, All: s.all}, p)
	result := wasCopied
	switch {
	case ctx.Err() != nil:
		return // neither copied nor failed
	case err == nil && got.Here:
		result = wasSame
	case d.Action == verbs.ActionReplace:
		result = wasReplaced
	}
	if err == nil {
		d.To = got.Image
	}
	s.note(d, result, err)
}

// note keeps what became of an image.
func (s *syncRun) note(d verbs.Difference, result string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := synced{Difference: d, Result: result}
	if err != nil {
		one.Result, one.Error, one.Code = wasFailed, err.Error(), exit.Code(err)
		s.fail(d.To.URI, err)
	}
	s.counts[one.Result]++
	s.done = append(s.done, one)
	if s.lines() && !term.Is(s.err) {
		s.line(one)
	}
}

// lines reports whether a line is printed for each image: a list in another form comes at
// the end.
func (s *syncRun) lines() bool { return s.format != asJSON && !s.quiet && !s.dryRun }

func (s *syncRun) line(one synced) {
	if one.Result != wasSame && one.Result != wasLeft {
		fmt.Fprintf(s.out, "%-8s  %9s  %s\n", one.Result, size(one.size()), backends.Printable(one.To.URI))
	}
}

func (s synced) size() int64 {
	if s.From != nil {
		return s.From.Size
	}
	return s.To.Size
}

// fail notes an error. Call with mu held, or before the workers start.
func (s *syncRun) fail(what string, err error) {
	s.errs = append(s.errs, err)
	text := backends.Printable(exit.Text(err))
	if name := backends.Printable(what); !strings.Contains(text, name) { // most errors name the image
		text = name + ": " + text
	}
	s.failed = append(s.failed, text)
}

// report prints what was done, and the errors. The exit code is that of the worst error.
func (s *syncRun) report(ctx context.Context, from string, wanted int) error {
	copied := s.counts[wasCopied] + s.counts[wasReplaced]
	if ctx.Err() != nil {
		s.notice(fmt.Sprintf("interrupted: %d of %d images are copied; run it again and it goes on", copied, wanted))
		return ctx.Err()
	}
	if s.lines() && term.Is(s.err) { // there was a bar
		for _, one := range s.done {
			s.line(one)
		}
	}
	if err := s.list(); err != nil {
		return err
	}
	if s.format != asJSON {
		for _, text := range s.failed {
			fmt.Fprintln(s.err, "sreg: "+text)
		}
	}
	sum := fmt.Sprintf("%s copied, %d the same before", plural(copied, "image"), s.counts[wasSame])
	if s.dryRun {
		sum = fmt.Sprintf("%s would be copied, %d replaced, %d deleted, %d the same", plural(len(s.found[verbs.ActionCopy]), "image"),
			len(s.found[verbs.ActionReplace]), len(s.found[verbs.ActionDelete]), s.counts[wasSame])
	} else if n := s.counts[wasDeleted]; n > 0 {
		sum += fmt.Sprintf(", %d deleted", n)
	}
	if n := len(s.found[verbs.ActionExtra]); n > 0 && !s.Delete {
		sum += fmt.Sprintf("; %d more there, which %s has not (--delete)", n, backends.Printable(from))
	}
	if len(s.errs) == 0 {
		s.notice(sum)
		return nil
	}
	return exit.WithCode(exit.Code(errors.Join(s.errs...)), fmt.Errorf("%s, %d failed", sum, len(s.errs)))
}

// list prints what was done, or would be, in the form that was asked for.
func (s *syncRun) list() error {
	if s.lines() || s.quiet && s.format != asJSON {
		return nil
	}
	shown := s.done
	if s.format != asJSON {
		shown = slices.DeleteFunc(slices.Clone(shown), func(one synced) bool {
			return one.Action == verbs.ActionSame || one.Action == verbs.ActionExtra
		})
	}
	return printAll(s.app, allOf(shown),
		column[synced]{"ACTION", func(one synced) string { return string(one.Action) }, nil},
		column[synced]{"SIZE", func(one synced) string { return size(one.size()) }, func(one synced) any { return one.size() }},
		column[synced]{"URI", func(one synced) string { return one.To.URI }, nil},
		column[synced]{"REASON", func(one synced) string { return cmp.Or(one.Error, one.Reason) }, nil})
}
