// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
)

func TestLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		first := svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		wantDiff(t, "first", b.mustLookup("c/x:1"), first)
		time.Sleep(59 * time.Second)
		b.mustLookup("c/x:1")
		if n := svc.count("stat"); n != 1 {
			t.Errorf("%d questions while fresh, want 1", n)
		}
		second := svc.put("c/x:1", []byte("22"))
		wantDiff(t, "fresh", b.mustLookup("c/x:1"), first)
		time.Sleep(2 * time.Second)
		wantDiff(t, "stale", b.mustLookup("c/x:1"), second)
		wantDiff(t, "events", b.took(), []string{"changed c/x:1"})
		b.Expire()
		b.mustLookup("c/x:1")
		if n := svc.count("stat"); n != 3 {
			t.Errorf("%d questions after Expire, want 3", n)
		}
	})
}

func TestLookup_version(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		old := svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		b.mustLookup("c/x:1")
		now := svc.put("c/x:1", []byte("22"))
		time.Sleep(2 * time.Minute)
		b.mustLookup("c/x:1")
		asked := svc.count("stat")

		ref := backends.Ref{Collection: "c", Name: "x", Tag: "1", Version: now.Version}
		img, err := b.Lookup(t.Context(), "lab", ref)
		if err != nil || img.Version != now.Version {
			t.Errorf("current version: %+v, %v", img, err)
		}
		if n := svc.count("stat") - asked; n != 0 {
			t.Errorf("the version that the tag means cost %d questions", n)
		}
		// What the tag meant before is still known when the registry is away.
		svc.set(func() { svc.down = true })
		ref.Version = old.Version
		img, err = b.Lookup(t.Context(), "lab", ref)
		if err != nil || img.Version != old.Version || img.Ref != ref {
			t.Errorf("old version offline: %+v, %v", img, err)
		}
		ref.Version = "never"
		_, err = b.Lookup(t.Context(), "lab", ref)
		wantErr(t, "unknown version offline", err, backends.ErrUnavailable)
	})
}

func TestLookup_absent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc)
		said := map[string]bool{}
		for range 3 {
			_, err := b.lookup("c/x:1")
			wantErr(t, "Lookup", err, fs.ErrNotExist)
			said[err.Error()] = true
		}
		if len(said) != 1 {
			t.Errorf("one answer, told in different words: %v", said)
		}
		if n := svc.count("stat"); n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
		svc.put("c/x:1", []byte("1"))
		time.Sleep(6 * time.Second)
		b.mustLookup("c/x:1")

		// Only an answer says that there is no such image.
		svc.set(func() { svc.fault = func(string) int { return 503 } })
		_, err := b.lookup("c/y:1")
		wantErr(t, "unavailable", err, backends.ErrUnavailable)
		svc.set(func() { svc.fault = nil })
		svc.put("c/y:1", []byte("1"))
		time.Sleep(time.Minute) // the client leaves a dead registry alone for a while
		b.mustLookup("c/y:1")
	})
}

// A listing that has the name is believed rather than an older "no such image".
func TestLookup_listedAfterAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.namesOnly = true
		svc.put("c/old:1", []byte("1"))
		b := newBench(t, svc)
		b.names("c")
		time.Sleep(time.Minute - time.Second)
		_, err := b.lookup("c/x:1")
		wantErr(t, "before it is there", err, fs.ErrNotExist)
		svc.put("c/x:1", []byte("1"))
		time.Sleep(2 * time.Second)
		b.names("c") // starts the refresh
		synctest.Wait()
		wantDiff(t, "names", b.names("c"), []string{"old:1", "x:1"})
		b.mustLookup("c/x:1")
	})
}

func TestLookup_offline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		want := svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		b.names("c")
		time.Sleep(time.Hour)
		for status, fault := range map[int]func(string) int{
			503: func(string) int { return 503 },
			429: func(string) int { return 429 },
		} {
			svc.set(func() { svc.fault = fault })
			b.Expire()
			if got, err := b.lookup("c/x:1"); err != nil || got.Version != want.Version {
				t.Errorf("status %d: %+v, %v", status, got, err)
			}
		}
		svc.set(func() { svc.fault = func(string) int { return 401 } })
		svc.set(func() { svc.down = false })
		time.Sleep(time.Minute)
		synctest.Wait()
		b.lookup("c/x:1") // sees that it is back
		synctest.Wait()
		b.restart()
		time.Sleep(time.Hour)
		_, err := b.lookup("c/x:1")
		wantErr(t, "not logged in", err, backends.ErrUnauthorized)
	})
}

// A registry that swallows packets costs one look a moment, and the others nothing.
func TestLookup_blackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		for i := range 20 {
			svc.put(fmt.Sprintf("c/x:%d", i), []byte("1"))
		}
		b := newBench(t, svc)
		b.names("c")
		time.Sleep(time.Hour)
		svc.set(func() { svc.slow = func(string) { time.Sleep(time.Hour) } })
		start := time.Now()
		for i := range 20 {
			b.mustLookup(fmt.Sprintf("c/x:%d", i))
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("20 looks at a registry that hangs took %v", d)
		}
		svc.set(func() { svc.slow = nil })
		time.Sleep(2 * time.Hour)
	})
}

func TestLookup_onceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("1"))
		svc.slow = func(string) { time.Sleep(time.Second) }
		b := newBench(t, svc)
		var wg sync.WaitGroup
		impatient, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		wg.Go(func() {
			_, err := b.Lookup(impatient, "lab", mustRef(t, "c/x:1"))
			wantErr(t, "impatient", err, context.DeadlineExceeded)
		})
		for range 64 {
			wg.Go(func() { b.mustLookup("c/x:1") })
		}
		wg.Wait()
		if n := svc.count("stat"); n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
	})
}

func TestLookup_ahead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tags = 3000
		svc := newService()
		svc.namesOnly = true
		for i := range tags {
			svc.put(fmt.Sprintf("c/x:%05d", i), []byte("1"))
		}
		svc.slow = func(string) { time.Sleep(50 * time.Millisecond) }
		b := newBench(t, svc)
		names := b.names("c")
		if n := svc.count("stat"); n != 0 {
			t.Fatalf("a listing asked %d times about single images", n)
		}
		b.mustLookup("c/" + names[0])
		synctest.Wait()
		if n := svc.count("stat"); n != 1 {
			t.Fatalf("one look asked %d times", n)
		}
		start := time.Now()
		for _, name := range names {
			b.mustLookup("c/" + name)
		}
		took := time.Since(start)
		if most := 50 * time.Millisecond * tags / 8; took > most {
			t.Errorf("%d looks in order took %v, want less than %v", tags, took, most)
		}
		if peak := svc.peak["stat"]; peak > 17 {
			t.Errorf("%d questions at once", peak)
		}
		// A look may begin in the moment when the answer is about to be stored.
		if n := svc.count("stat"); n < tags || n > tags+16 {
			t.Errorf("%d questions, want %d", n, tags)
		}
		time.Sleep(time.Minute)
	})
}

// Facts that come with the listing are made fresh by a listing, not one by one.
func TestLookup_aheadByListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		for i := range 500 {
			svc.put(fmt.Sprintf("c/x:%05d", i), []byte("1"))
		}
		b := newBench(t, svc)
		names := b.names("c")
		time.Sleep(time.Hour)
		for _, name := range names {
			b.mustLookup("c/" + name)
			synctest.Wait()
		}
		if n := svc.count("stat"); n > 5 {
			t.Errorf("%d questions, want a few", n)
		}
	})
}

// An answer that was under way when we published must not undo what we know.
func TestLookup_olderThanPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Overwrite: true} })
		svc.put("c/x:1", tiny(t, "old"))
		b.names("c")
		release := make(chan struct{})
		svc.set(func() {
			svc.slow = func(kind string) {
				if kind == "list" {
					<-release
				}
			}
		})
		done := make(chan error)
		go func() { done <- b.Refresh(t.Context(), "lab", "c") }()
		synctest.Wait()
		publish(t, b, "c/y:1", tiny(t, "new"))
		svc.set(func() { delete(svc.images, mustRef(t, "c/y:1")) }) // the listing was made before
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantDiff(t, "names", b.names("c"), []string{"x:1", "y:1"})
	})
}
