// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// meanwhile refreshes a collection and calls write between the service's answer and
// its arrival.
func meanwhile(t *testing.T, b *bench, collection string, write func()) {
	t.Helper()
	answered, arrives := make(chan struct{}), make(chan struct{})
	b.svc.set(func() {
		b.svc.late = func(kind string) {
			if kind == "list" {
				b.svc.set(func() { b.svc.late = nil })
				close(answered)
				<-arrives
			}
		}
	})
	done := make(chan error)
	go func() { done <- b.Refresh(t.Context(), "lab", collection) }()
	<-answered
	write()
	close(arrives)
	if err := <-done; err != nil && collection == "" {
		t.Errorf("Refresh(%q): %v", collection, err)
	}
}

// known is what is known without asking.
func known(t *testing.T, b *bench) []string {
	t.Helper()
	got, err := uris(t, b.Images(t.Context(), verbs.ImagesOptions{Remote: "lab"}))
	if err != nil {
		t.Errorf("Images: %v", err)
	}
	return got
}

// What was pushed while the registry was listing is not in its answer, and stays:
// the image, its collection, and those above.
func TestListing_pushedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, collection := range []string{"", "new", "new/deep", "old"} {
		svc := newService()
		svc.put("old/x:1", []byte("1"))
		b := newBench(t, svc)
		b.names("")
		b.names("old")
		meanwhile(t, b, collection, func() {
			publish(t, b, "new/deep/x:1", tiny(t, "new"))
			publish(t, b, "old/y:1", tiny(t, "new too"))
		})
		wantDiff(t, "stored after listing "+collection, known(t, b), []string{"lab://new/deep/x:1", "lab://old/x:1", "lab://old/y:1"})
		asked := svc.count("list")
		wantDiff(t, "the root after listing "+collection, b.names(""), []string{"new/", "old/"})
		if asked != svc.count("list") {
			t.Errorf("the root was listed again")
		}
		wantDiff(t, "new after listing "+collection, b.names("new"), []string{"new/deep/"})
		wantDiff(t, "new/deep after listing "+collection, b.names("new/deep"), []string{"x:1"})
	}
}

// What was deleted while the registry was listing is in its answer, and does not
// come back: neither the image nor the collection that went with it.
func TestListing_deletedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, collection := range []string{"", "c", "c/deep"} {
		svc := newService()
		svc.put("c/deep/x:1", []byte("1"))
		svc.put("old/x:1", []byte("1"))
		b := newBench(t, svc)
		for _, at := range []string{"", "c", "c/deep", "old"} {
			b.names(at)
		}
		meanwhile(t, b, collection, func() {
			if _, err := b.Remove(t.Context(), "lab://c/deep/x:1", ""); err != nil {
				t.Fatal(err)
			}
		})
		wantDiff(t, "stored after listing "+collection, known(t, b), []string{"lab://old/x:1"})
		wantDiff(t, "the root after listing "+collection, b.names(""), []string{"old/"})
		for _, gone := range []string{"c", "c/deep"} {
			if is, err := b.IsCollection(t.Context(), "lab", gone); is || err != nil {
				t.Errorf("%s is still there after listing %q (%v)", gone, collection, err)
			}
		}
	}
}

// However much is written while a registry is listing, nothing of it is forgotten.
func TestListing_muchWrittenMeanwhile(t *testing.T) {
	t.Parallel()
	const many = 10_002
	svc := newService()
	var images []backends.Image
	for i := range many {
		images = append(images, svc.put(fmt.Sprintf("c/x:%d", i), nil))
	}
	svc.put("c/y:1", nil)
	b := newBench(t, svc)
	b.names("c")
	meanwhile(t, b, "c", func() {
		for _, img := range images {
			if err := b.Delete(t.Context(), "lab", img); err != nil {
				t.Fatal(err)
			}
		}
	})
	wantDiff(t, "names", b.names("c"), []string{"y:1"})
}

// A listing is as old as the question, not as the answer.
func TestListing_age(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		svc.late = func(kind string) {
			if kind == "list" {
				time.Sleep(20 * time.Second)
			}
		}
		start := time.Now()
		b.names("c")
		time.Sleep(5*20*time.Second - time.Since(start) + time.Second) // one that takes long is good for longer
		b.names("c")
		synctest.Wait()
		if n := svc.count("list"); n != 2 {
			t.Errorf("listed %d times, want 2", n)
		}
		time.Sleep(time.Minute)
	})
}

// While the machine sleeps time goes on: in the morning nothing is fresh.
func TestSuspend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.namesOnly = true
		svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		b.names("c")
		b.mustLookup("c/x:1")
		if _, err := b.lookup("c/none:1"); err == nil {
			t.Fatal("found what is not there")
		}
		b.Suspend(8 * time.Hour)
		lists, stats := svc.count("list"), svc.count("stat")
		b.names("c")
		synctest.Wait()
		b.mustLookup("c/x:1")
		_, err := b.lookup("c/none:1")
		wantErr(t, "Lookup", err, fs.ErrNotExist)
		if l, s := svc.count("list")-lists, svc.count("stat")-stats; l != 1 || s != 2 {
			t.Errorf("after eight hours of sleep %d listings and %d lookups asked the registry, want 1 and 2", l, s)
		}
		b.Suspend(-9 * time.Hour) // set back
		lists = svc.count("list")
		b.names("c")
		synctest.Wait()
		if n := svc.count("list") - lists; n != 0 {
			t.Errorf("a clock that was set back made %d listings", n)
		}
	})
}

// What was looked at while the clock was ahead is swept like everything else.
func TestClockWasAhead(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.namesOnly = true
	svc.put("c/x:1", []byte("1"))
	svc.put("c/y:1", []byte("1"))
	b := newBench(t, svc)
	b.names("c")
	b.mustLookup("c/x:1")
	b.close()
	synctest.Test(t, func(t *testing.T) { // whose clock is decades behind
		b.open()
		svc.drop("c/x:1")
		if err := b.Refresh(t.Context(), "lab", "c"); err != nil {
			t.Error(err)
		}
		wantDiff(t, "names", b.names("c"), []string{"y:1"})
		b.close()
	})
	b.open()
}

// A change that the service tells of while it is listing makes it list again.
func TestListing_changedMeanwhile(t *testing.T) {
	t.Parallel()
	for _, change := range []backends.Change{{Collection: "a/b"}, {Collection: "a", Below: true}, {Below: true}} {
		svc := newService()
		svc.put("a/b/x:1", []byte("1"))
		changes := make(chan []byte)
		b := newBench(t, svc)
		b.close()
		client := backends.NewClient("lab", watcher{remote{&http.Client{Transport: svc}}, changes}, backends.ClientOptions{})
		c, err := catalog.New(catalog.Options{Remotes: []catalog.Remote{{Name: "lab", Client: client}}, State: b.state})
		if err != nil {
			t.Fatal(err)
		}
		b.use(c)
		b.names("a/b")
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		told := make(chan struct{})
		stop := b.Watch(func(e catalog.Event) {
			if e.Kind == catalog.ListingChanged && e.Collection == "a/b" {
				select {
				case told <- struct{}{}:
				default:
				}
			}
		})
		meanwhile(t, b, "a/b", func() {
			svc.put("a/b/y:1", []byte("1"))
			for _, c := range []backends.Change{change, {Collection: "none"}} { // the second when the first was noted
				text, err := json.Marshal(c)
				if err != nil {
					t.Fatal(err)
				}
				changes <- text
			}
		})
		for len(b.names("a/b")) < 2 {
			<-told
		}
		stop()
	}
}
