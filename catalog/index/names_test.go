// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

// somePart returns a part of a name, mostly an ordinary one.
func somePart(r *rand.Rand) string {
	parts := []string{"tool", "Tool", "TOOL-2", "a", "ab", "abc", "v1.0", "V1.0-RC1", "lab", "x_y", "0", "1.2.3", "latest"}
	if r.IntN(10) == 0 {
		parts = []string{"ünï", ".hidden", "a:b", "100%", "K", "a@b", "line\nbreak", "nul\x00", "soh\x01"}
	}
	p := parts[r.IntN(len(parts))]
	if r.IntN(2) == 0 {
		p += fmt.Sprint(r.IntN(100))
	}
	return p
}

func someRef(r *rand.Rand) backends.Ref {
	var collection []string
	for range r.IntN(3) {
		collection = append(collection, somePart(r))
	}
	return backends.Ref{Collection: strings.Join(collection, "/"), Name: somePart(r), Tag: somePart(r)}
}

// someQuery returns a piece of a URI, or a glob made of one.
func someQuery(r *rand.Rand, uri string) string {
	i := r.IntN(len(uri))
	q := []byte(uri[i : i+1+r.IntN(len(uri)-i)])
	if r.IntN(3) == 0 {
		q = bytes.ToUpper(q)
	}
	if r.IntN(2) == 0 {
		for range 1 + r.IntN(3) {
			meta := []string{"*", "?", "[a-z]", "[^0]", "\\"}[min(r.IntN(8), 4)]
			q = slices.Replace(q, r.IntN(len(q)), len(q), append([]byte(meta), q[r.IntN(len(q)):]...)...)
		}
		q = append(append([]byte{'*'}, q...), '*')
	}
	return string(q)
}

// A search in the table finds what a look at each name finds.
func TestNameTable_find(t *testing.T) {
	t.Parallel()
	for _, remote := range []string{"lab", "Hub-1"} {
		for seed := range uint64(8) {
			r := rand.New(rand.NewPCG(seed, 7))
			refs := make(map[string]backends.Ref)
			for range 1000 {
				ref := someRef(r)
				refs[string(ImageKey(remote, ref))] = ref
			}
			table, keys := tableOf(remote, refs)
			for range 60 {
				uri := backends.URI{Remote: remote, Ref: refs[keys[r.IntN(len(keys))]]}.String()
				query := someQuery(r, uri)
				m, err := NewMatcher(query)
				if err != nil {
					continue
				}
				var want []string
				for _, key := range keys {
					if m.Match(remote, refs[key]) {
						want = append(want, key)
					}
				}
				found, ok := table.find(m, len(keys))
				var got []string
				for _, key := range found {
					got = append(got, string(key))
				}
				if diff := cmp.Diff(want, got); ok && diff != "" {
					t.Errorf("seed %d: find(%q) (-want +got):\n%s", seed, query, diff)
				}
				if _, ok := table.find(m, len(want)-1); ok && len(want) > 0 {
					t.Errorf("seed %d: find(%q) takes %d for fewer", seed, query, len(want))
				}
			}
		}
	}
}

func tableOf(remote string, refs map[string]backends.Ref) (*nameTable, []string) {
	var keys []string
	for key := range refs {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	table := newNameTable(remote)
	for _, key := range keys {
		ref := refs[key]
		table.add([]byte(key), []byte(ref.Collection), []byte(ref.Name), []byte(ref.Tag))
	}
	return table, keys
}

func TestNameTable_has(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	in, out := make(map[string]backends.Ref), make(map[string]backends.Ref)
	for range 40_000 {
		ref := someRef(r)
		key := string(ImageKey("lab", ref))
		if _, ok := out[key]; !ok && (in[key] != backends.Ref{} || r.IntN(2) == 0) {
			in[key] = ref
		} else {
			out[key] = ref
		}
	}
	table, _ := tableOf("lab", in)
	if len(table.chunks) < 2 {
		t.Fatalf("%d chunks are too few for this test", len(table.chunks))
	}
	for key := range in {
		if !table.has([]byte(key)) {
			t.Errorf("has(%q) = false", key)
		}
	}
	for key := range out {
		if table.has([]byte(key)) {
			t.Errorf("has(%q) = true", key)
		}
	}
}

func (x *nameIndex) tables() (n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.remotes {
		if r.table != nil {
			n++
		}
	}
	return n
}

func imageChange(ref backends.Ref) KV {
	return KV{ImageKey("lab", ref), Encode(Entry{Flags: InListing}, ref)}
}

func TestNameIndex(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var x nameIndex
		m, err := NewMatcher("tool")
		if err != nil {
			t.Fatal(err)
		}
		ref := func(i int) backends.Ref {
			return backends.Ref{Collection: "a", Name: "tool", Tag: fmt.Sprintf("%06d", i)}
		}
		fill := func(table *nameTable, n int) {
			for i := range n {
				kv := imageChange(ref(i))
				table.add(kv.Key, []byte("a"), []byte("tool"), []byte(ref(i).Tag))
			}
		}
		found := func(want int) {
			t.Helper()
			if keys, ok := x.find("lab", m); !ok || len(keys) != want {
				t.Errorf("%d names, %t, want %d", len(keys), ok, want)
			}
		}
		lost := func(why string) {
			t.Helper()
			if _, ok := x.find("lab", m); ok || x.tables() != 0 {
				t.Errorf("names are kept %s", why)
			}
		}
		x.note([]KV{imageChange(ref(1))})
		lost("that nobody asked for")

		table := x.begin("lab")
		if x.begin("lab") != nil {
			t.Error("two make one table")
		}
		fill(table, 5)
		x.note([]KV{imageChange(ref(2)), imageChange(ref(7))}) // behind the reader's back
		x.finish(table, true)
		found(6)
		x.note([]KV{imageChange(ref(3)), imageChange(ref(8)), {Key: ImageKey("lab", ref(9))}})
		found(7)

		time.Sleep(namesLife - 1)
		found(7)
		time.Sleep(namesLife - 1)
		found(7)
		time.Sleep(namesLife + 1)
		synctest.Wait()
		lost("for ever")

		table = x.begin("lab")
		fill(table, 5)
		x.finish(table, false)
		lost("by halves")

		table = x.begin("lab")
		fill(table, 5)
		x.finish(table, true)
		for i := range maxAdded + 1 {
			x.note([]KV{imageChange(ref(10 + i))})
		}
		lost("though most are not in the table")

		table = x.begin("lab")
		x.close()
		x.finish(table, true)
		lost("after the end")
	})
}
