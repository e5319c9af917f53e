// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/fsys"
)

// readPatterns returns the arguments and the lines of a list. Errors: also ctx's.
func (a *app) readPatterns(ctx context.Context, args []string, from string) ([]string, error) {
	if from == "" {
		return args, nil
	}
	lines, err := interruptible(ctx, func() ([]string, error) {
		if from == "-" {
			return readList(a.in)
		}
		f, err := os.Open(from)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readList(f)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return append(args[:len(args):len(args)], lines...), nil
}

// readList returns the lines of a list, without comments, which begin a line or
// follow a space.
func readList(r io.Reader) ([]string, error) {
	var all []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line, _, _ := strings.Cut(" "+strings.ReplaceAll(lines.Text(), "\t", " "), " #")
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all, lines.Err()
}

// A warmTarget is one image to fetch.
type warmTarget struct {
	uri string
	rec verbs.Record
	to  string // file of the copy; "" for none
}

// planWorkers is how many questions to registries are asked at once.
const planWorkers = 8

// plan returns the images that match the patterns, each once, in the order of the
// patterns. A pattern that matches nothing is noted as a failure, and the others go on.
func (w *warmRun) plan(ctx context.Context, patterns []string) ([]warmTarget, error) {
	chosen := make([][]verbs.Record, len(patterns))
	errs := make([]error, len(patterns))
	var g errgroup.Group
	g.SetLimit(planWorkers)
	for i, pattern := range patterns {
		g.Go(func() error {
			errs[i] = backends.Guard(w.log(), func() (err error) { chosen[i], err = w.choose(ctx, pattern); return err })
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var targets []warmTarget
	seen := map[string]bool{}
	for i, pattern := range patterns {
		for _, rec := range chosen[i] {
			t := w.target(pattern, rec)
			if !seen[t.uri] {
				seen[t.uri] = true
				targets = append(targets, t)
			}
		}
		if errs[i] != nil {
			w.fail(pattern, errs[i])
			if w.format == asJSON {
				w.event(failedEvent(pattern, errs[i]))
			}
		}
	}
	return targets, nil
}

// choose returns the images that match one pattern; with an error, those until then.
func (w *warmRun) choose(ctx context.Context, pattern string) ([]verbs.Record, error) {
	var all []verbs.Record
	for rec, err := range w.client.Choose(ctx, pattern) {
		if err != nil {
			return all, err
		}
		all = append(all, rec)
	}
	return all, nil
}

// target makes the target of an image that a pattern matched. If the pattern names a
// version, the target does so too, and the copy has the version in its name, as in the
// mount.
func (w *warmRun) target(pattern string, rec verbs.Record) warmTarget {
	ref := rec.Ref
	if u, err := backends.ParseURI(pattern); err == nil && u.Ref.Version != "" {
		ref.Version = u.Ref.Version
	}
	t := warmTarget{uri: backends.URI{Remote: rec.Remote, Ref: ref}.String(), rec: rec}
	if w.to != "" {
		t.to = filepath.Join(w.to, filepath.FromSlash(fsys.PathOf(fsys.Names(w.settings.Names), rec.Remote, ref, rec.Format)))
	}
	return t
}
