// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// with is a catalogue on the bench's state whose remote lists what list does.
func (b *bench) with(list func() iter.Seq2[backends.Entry, error]) {
	b.t.Helper()
	b.close()
	client := backends.NewClient("lab", brokenLister{remote{&http.Client{Transport: b.svc}}, list}, backends.ClientOptions{})
	c, err := catalog.New(catalog.Options{Remotes: []catalog.Remote{{Name: "lab", Client: client}}, State: b.state})
	if err != nil {
		b.t.Fatal(err)
	}
	b.use(c)
}

// A brokenLister lists in its own way.
type brokenLister struct {
	remote
	list func() iter.Seq2[backends.Entry, error]
}

func (b brokenLister) List(context.Context, string) iter.Seq2[backends.Entry, error] { return b.list() }

// oneThen lists one image, then err.
func oneThen(err error) func() iter.Seq2[backends.Entry, error] {
	return func() iter.Seq2[backends.Entry, error] {
		return func(yield func(backends.Entry, error) bool) {
			img := backends.Image{Ref: backends.Ref{Collection: "c", Name: "new", Tag: "1"}, Size: 1, Version: "9"}
			if yield(backends.Entry{Image: img}, nil) {
				yield(backends.Entry{}, err)
			}
		}
	}
}

// Whatever ends a listing halfway, "not found" too, nothing that was there before
// vanishes, and the collection does not either.
func TestRefresh_brokenOff(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{
		fmt.Errorf("%w: connection reset", backends.ErrUnavailable), fs.ErrNotExist, fs.ErrPermission, errors.ErrUnsupported, backends.ErrUnauthorized,
	} {
		t.Run(cause.Error(), func(t *testing.T) {
			t.Parallel()
			svc := newService()
			svc.put("c/a:1", []byte("1"))
			svc.put("c/b:1", []byte("1"))
			b := newBench(t, svc)
			b.names("c")
			b.with(oneThen(cause))
			if err := b.Refresh(t.Context(), "lab", "c"); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("Refresh: %v", err)
			}
			wantDiff(t, "names", b.names("c"), []string{"a:1", "b:1", "new:1"})
		})
	}
}

// The first listing that breaks off shows what came, and says that it is not all.
func TestList_firstBreaksOff(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{fs.ErrNotExist, fs.ErrPermission, errors.ErrUnsupported, backends.ErrUnauthorized} {
		b := newBench(t, newService())
		b.with(oneThen(cause))
		for range 2 { // the second time from the store
			entries, err := backends.Collect(b.List(t.Context(), "lab", "c"))
			if len(entries) != 1 || err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("List, cut off by %v: %d entries, %v", cause, len(entries), err)
			}
		}
		if got, err := uris(t, b.Images(t.Context(), verbs.ImagesOptions{Remote: "lab", Refresh: true})); err == nil {
			t.Errorf("Images, cut off by %v: %v without an error", cause, got)
		}
	}
}

// What a registry will not tell of is as it was; the rest is swept.
func TestRefresh_untold(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a", ""} {
		svc := newService()
		for _, ref := range []string{"c/a:1", "c/a:2", "c/b:1", "c/new:1"} {
			svc.put(ref, []byte("1"))
		}
		b := newBench(t, svc)
		b.names("c")
		b.with(func() iter.Seq2[backends.Entry, error] {
			return func(yield func(backends.Entry, error) bool) {
				untold := backends.Entry{Image: backends.Image{Ref: backends.Ref{Collection: "c", Name: name}}, Untold: fs.ErrPermission}
				if !yield(untold, nil) {
					return
				}
				for e, err := range oneThen(nil)() {
					if err != nil || e.Image.Ref.Name == "" || !yield(e, nil) {
						return
					}
				}
			}
		})
		if err := b.Refresh(t.Context(), "lab", "c"); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		want := []string{"a:1", "a:2", "new:1"}
		if name == "" {
			want = []string{"a:1", "a:2", "b:1", "new:1"}
		}
		wantDiff(t, "names with "+name+" untold", b.names("c"), want)
	}
}

// A listing of which nothing is told is an error, and no empty one.
func TestList_nothingTold(t *testing.T) {
	t.Parallel()
	b := newBench(t, newService())
	b.with(func() iter.Seq2[backends.Entry, error] {
		return func(yield func(backends.Entry, error) bool) {
			yield(backends.Entry{Untold: fs.ErrPermission}, nil)
		}
	})
	entries, err := backends.Collect(b.List(t.Context(), "lab", "c"))
	if len(entries) != 0 || err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("List: %v, %v", entries, err)
	}
}

// A remote's root that is "not found" for a while leaves all names as they were.
func TestRefresh_rootNotFound(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/a:1", []byte("1"))
	b := newBench(t, svc)
	b.names("")
	b.names("c")
	b.with(func() iter.Seq2[backends.Entry, error] { return backends.Fail[backends.Entry](fs.ErrNotExist) })
	wantErr(t, "Refresh", b.Refresh(t.Context(), "lab", ""), fs.ErrNotExist)
	wantDiff(t, "names", b.names(""), []string{"c/"})
}
