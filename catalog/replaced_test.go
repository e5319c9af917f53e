// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A tag that was replaced elsewhere after it was listed: whoever opens it gets what it
// means now, and does not wait until the listing is old.
func TestReplaced(t *testing.T) {
	t.Parallel()
	verbs := map[string]func(b *bench) (content []byte, err error){
		"pull": func(b *bench) ([]byte, error) {
			to := filepath.Join(b.t.TempDir(), "copy")
			if _, err := b.Pull(b.t.Context(), "lab://c/a:1", verbs.PullOptions{To: to}, nil); err != nil {
				return nil, err
			}
			return os.ReadFile(to)
		},
		"warm": func(b *bench) ([]byte, error) {
			w, err := b.Warm(b.t.Context(), "lab://c/a:1", verbs.WarmOptions{Pin: true}, nil)
			if err != nil {
				return nil, err
			}
			return os.ReadFile(w.Image.Path)
		},
		"open": func(b *bench) ([]byte, error) {
			ref := mustRef(b.t, "c/a:1")
			img, err := b.Lookup(b.t.Context(), "lab", ref)
			if err != nil {
				return nil, err
			}
			if _, err := b.Blob(b.t.Context(), "lab", img); !errors.Is(err, backends.ErrChanged) {
				b.t.Errorf("Blob of the version that was replaced: %v", err)
			}
			if img, err = b.Lookup(b.t.Context(), "lab", ref); err != nil { // what the kernel does after ESTALE
				return nil, err
			}
			blob, err := b.Blob(b.t.Context(), "lab", img)
			if err != nil {
				return nil, err
			}
			defer blob.Close()
			buf := make([]byte, blob.Size())
			_, err = blob.ReadAt(buf, 0)
			return buf, err
		},
	}
	for name, open := range verbs {
		for _, status := range []int{http.StatusPreconditionFailed, http.StatusNotFound} {
			t.Run(name+" "+http.StatusText(status), func(t *testing.T) {
				t.Parallel()
				svc := newService()
				svc.put("c/a:1", []byte("old"))
				b := newBench(t, svc)
				b.names("c")
				svc.put("c/a:1", []byte("new, and longer"))
				var opened atomic.Int64
				svc.set(func() {
					svc.fault = func(kind string) int {
						if kind == "open" && opened.Add(1) == 1 {
							return status
						}
						return 0
					}
				})
				content, err := open(b)
				if err != nil || string(content) != "new, and longer" {
					t.Errorf("%q, %v", content, err)
				}
			})
		}
	}
}

// A version that somebody names is what he gets, or nothing.
func TestReplaced_named(t *testing.T) {
	t.Parallel()
	svc := newService()
	old := svc.put("c/a:1", []byte("old"))
	b := newBench(t, svc)
	uri := "lab://c/a:1@" + old.Version
	if _, err := b.Lookup(t.Context(), "lab", mustRef(t, "c/a:1@"+old.Version)); err != nil {
		t.Fatal(err)
	}
	svc.put("c/a:1", []byte("new, and longer"))
	svc.set(func() { delete(svc.history, old.Version) })
	if rec, err := b.Pull(t.Context(), uri, verbs.PullOptions{}, nil); err == nil {
		t.Errorf("pulled %+v", rec)
	}
}
