// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// versions counts what is stored under versions.
func (b *bench) versions() (n int) {
	b.t.Helper()
	for _, err := range b.store.Scan([]byte("v"), nil) {
		if err != nil {
			b.t.Fatal(err)
		}
		n++
	}
	return n
}

// A tag that moves all the time leaves nothing behind, whoever finds out: a
// lookup, a listing, or our own push.
func TestVersions_movedTag(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("0"))
		b := newBench(t, svc, func(b *bench) { b.policy.Overwrite = true })
		for i := range 10 {
			for _, learn := range []func(){
				func() { b.mustLookup("c/x:1") },
				func() { b.Refresh(t.Context(), "lab", "c") },
				func() {
					b.Push(t.Context(), file(t, tiny(t, fmt.Sprint(i))), "lab://c/x:1", verbs.PushOptions{Force: true}, nil)
				},
			} {
				svc.put("c/x:1", fmt.Append(nil, i))
				learn()
				time.Sleep(2 * time.Minute)
			}
		}
		if n := b.versions(); n > 1 {
			t.Errorf("%d versions are stored of a tag that moved 30 times", n)
		}
	})
}

// A version stays as long as its bytes do, without the registry too. Those that
// lost their use otherwise go when the program starts.
func TestVersions_cached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		old := svc.put("c/x:1", tiny(t, "old"))
		asked := svc.put("c/y:1", []byte("1"))
		b := newBench(t, svc)
		read(t, b, b.mustLookup("c/x:1"))
		svc.put("c/x:1", tiny(t, "new"))
		time.Sleep(2 * time.Hour)
		b.mustLookup("c/x:1")
		if _, err := b.Lookup(t.Context(), "lab", backends.Ref{Collection: "c", Name: "y", Version: asked.Version}); err != nil {
			t.Fatal(err)
		}
		if n := b.versions(); n != 2 {
			t.Errorf("%d versions are stored, want 2", n)
		}
		time.Sleep(2 * time.Hour)
		b.restart()
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := b.versions(); n != 1 {
			t.Errorf("%d versions are stored after a start, want the one that is cached", n)
		}
		svc.set(func() { svc.down = true })
		img, err := b.Lookup(t.Context(), "lab", backends.Ref{Collection: "c", Name: "x", Version: old.Version})
		if err != nil || img.Digest != old.Digest {
			t.Errorf("Lookup of what is cached: %+v, %v", img, err)
		}
	})
}
