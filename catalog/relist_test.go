// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
)

// A scripted registry lists what it is told to, in that order.
type scripted struct{ entries *[]backends.Entry }

func (s scripted) List(context.Context, string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		for _, e := range *s.entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (scripted) Stat(context.Context, backends.Ref) (backends.Image, error) {
	return backends.Image{}, fs.ErrNotExist
}

func (scripted) Open(context.Context, backends.Image, int64, int64) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
}

func openScripted(t *testing.T, s scripted, log *slog.Logger) *catalog.Catalog {
	t.Helper()
	c, err := catalog.New(catalog.Options{
		Remotes: []catalog.Remote{{Name: "lab", Client: backends.NewClient("lab", s, backends.ClientOptions{})}},
		State:   func() (*catalog.State, error) { return &catalog.State{Index: index.New(mem.New())}, nil },
		Log:     log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Whatever the order of a listing, what is stored is what it said, and what
// changed is told.
func TestRefresh_order(t *testing.T) {
	t.Parallel()
	orders := map[string]func(*rand.Rand, []backends.Entry) []backends.Entry{
		"ours":    func(_ *rand.Rand, all []backends.Entry) []backends.Entry { return all },
		"reverse": func(_ *rand.Rand, all []backends.Entry) []backends.Entry { slices.Reverse(all); return all },
		"none": func(r *rand.Rand, all []backends.Entry) []backends.Entry {
			r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			return all
		},
		"one late": func(_ *rand.Rand, all []backends.Entry) []backends.Entry { return append(all[1:], all[0]) },
		"twice": func(_ *rand.Rand, all []backends.Entry) []backends.Entry {
			var twice []backends.Entry
			for _, e := range all {
				twice = append(twice, e, e)
			}
			return twice
		},
		"again": func(_ *rand.Rand, all []backends.Entry) []backends.Entry { return append(all, all...) },
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(3, uint64(len(name))))
			var entries []backends.Entry
			c := openScripted(t, scripted{&entries}, nil)
			var events []string
			c.Watch(func(e catalog.Event) {
				if e.Kind == catalog.ImageGone || e.Kind == catalog.ImageChanged {
					events = append(events, fmt.Sprint(e.Kind, e.Ref))
				}
			})
			had := map[string]string{} // versions
			for round := range 6 {
				entries, events = nil, nil
				has, told := map[string]string{}, []string{}
				var want []string
				for i := range 3000 {
					if r.IntN(10) == 0 {
						continue
					}
					e := backends.Entry{Collection: fmt.Sprintf("sub%03d", i)}
					if i >= 100 {
						ref := backends.Ref{Name: fmt.Sprintf("tool%02d", i/100), Tag: fmt.Sprintf("v%02d", i%100)}
						e = backends.Entry{Image: backends.Image{Ref: ref, Size: 1, Version: fmt.Sprint("rev", (i+round)/500)}}
						has[ref.String()] = e.Image.Version
						if v, ok := had[ref.String()]; ok && v != e.Image.Version {
							told = append(told, fmt.Sprint(catalog.ImageChanged, ref))
						}
					}
					entries = append(entries, e)
					want = append(want, e.Collection+e.Image.Ref.String()+e.Image.Version)
				}
				for ref := range had {
					if _, ok := has[ref]; !ok {
						told = append(told, fmt.Sprint(catalog.ImageGone, mustRef(t, ref)))
					}
				}
				had = has
				entries = order(r, entries)
				if err := c.Refresh(t.Context(), "lab", ""); err != nil {
					t.Fatal(err)
				}
				var got []string
				for e, err := range c.List(t.Context(), "lab", "") {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, e.Collection+e.Image.Ref.String()+e.Image.Version)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("round %d (-want +got):\n%s", round, diff)
				}
				slices.Sort(told)
				slices.Sort(events)
				if diff := cmp.Diff(told, slices.Compact(events)); diff != "" && round > 0 {
					t.Fatalf("round %d: events (-want +got):\n%s", round, diff)
				}
			}
		})
	}
}

// Names that no store takes are left out, and told of once.
func TestRefresh_badNames(t *testing.T) {
	t.Parallel()
	var entries []backends.Entry
	for i := range 2000 {
		name := fmt.Sprintf("tool%04d", i)
		if i%2 == 1 {
			name += strings.Repeat("x", index.MaxKey)
		}
		entries = append(entries, backends.Entry{Image: backends.Image{Ref: backends.Ref{Name: name, Tag: "1"}, Size: -1}})
	}
	var out strings.Builder
	c := openScripted(t, scripted{&entries}, slog.New(slog.NewTextHandler(&out, nil)))
	if err := c.Refresh(t.Context(), "lab", ""); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range c.List(t.Context(), "lab", "") {
		n++
	}
	if lines := strings.Count(out.String(), "left out of a listing"); n != 1000 || lines != 1 || !strings.Contains(out.String(), "count=1000") {
		t.Errorf("%d names, %d lines in the log:\n%.500s", n, lines, out.String())
	}
}
