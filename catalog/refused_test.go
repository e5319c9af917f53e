// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A collection whose listing is refused is there, and what is in it can be had by name.
// That a service does not answer, or wants to be left alone, says nothing of it.
func TestIsCollection_refused(t *testing.T) {
	for status, want := range map[int]error{
		http.StatusForbidden: nil, http.StatusUnauthorized: nil, http.StatusNotImplemented: nil,
		http.StatusTooManyRequests: backends.ErrRateLimited, http.StatusInternalServerError: backends.ErrUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			svc := newService()
			svc.put("secret/x:1", []byte("1"))
			svc.put("public/x:1", []byte("1"))
			svc.untold = "secret"
			b := newBench(t, svc)
			b.names("") // a listing that does not tell of it
			svc.set(func() {
				svc.fault = func(kind string) int {
					if kind == "list" {
						return status
					}
					return 0
				}
			})
			is, err := b.IsCollection(t.Context(), "lab", "secret")
			wantErr(t, fmt.Sprint("IsCollection, status ", status), err, want)
			if is != (want == nil) {
				t.Errorf("status %d: IsCollection = %v", status, is)
			}
			time.Sleep(10 * time.Second) // where nobody answered that is a while
			b.mustLookup("secret/x:1")
			_, err = backends.Collect(b.List(t.Context(), "lab", "secret"))
			if status == http.StatusForbidden || status == http.StatusUnauthorized {
				want = fs.ErrPermission
			}
			wantErr(t, fmt.Sprint("List, status ", status), err, want)
		})
	}
}

// A refusal is asked for once, however many look: those who look come back for each
// attribute.
func TestLookup_refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc)
		svc.set(func() { svc.fault = func(string) int { return http.StatusForbidden } })
		look := func(wantAsked int) {
			t.Helper()
			before := svc.count("stat")
			for range 3 {
				for i := range 10 {
					_, err := b.lookup(fmt.Sprintf("c/x:%d", i))
					wantErr(t, "Lookup", err, fs.ErrPermission)
				}
			}
			if n := svc.count("stat") - before; n != wantAsked {
				t.Errorf("%d questions about ten refused images, want %d", n, wantAsked)
			}
		}
		look(10)
		time.Sleep(3 * time.Second)
		look(0)
		time.Sleep(3 * time.Second)
		look(10)
		// Another login may be given another answer: it need not wait.
		r, err := b.Remote("lab")
		if err != nil {
			t.Fatal(err)
		}
		b.SetRemote(r)
		look(10)
		svc.set(func() { svc.fault = nil })
		svc.put("c/x:1", []byte("1"))
		time.Sleep(6 * time.Second)
		b.mustLookup("c/x:1")
	})
}

// Somebody who is not logged in does so, and looks again at once.
func TestLookup_unauthorized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.put("c/x:1", []byte("1"))
		b := newBench(t, svc)
		svc.set(func() { svc.fault = func(string) int { return http.StatusUnauthorized } })
		_, err := b.lookup("c/x:1")
		wantErr(t, "Lookup", err, backends.ErrUnauthorized)
		svc.set(func() { svc.fault = nil })
		b.mustLookup("c/x:1")
	})
}

// A listing can tell all but the size, which a question about the one image does tell: that
// is put when somebody reads, and not for everything that is listed.
func TestBlob_sizeNotListed(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.noSizes = true
	content := bytes.Repeat([]byte("x"), 5000)
	for i := range 20 {
		svc.put(fmt.Sprintf("c/x:%d", i), content)
	}
	b := newBench(t, svc)
	b.names("c")
	for i := range 20 {
		if img := b.mustLookup(fmt.Sprintf("c/x:%d", i)); img.Size != -1 || img.Version == "" {
			t.Fatalf("Lookup = %+v", img)
		}
	}
	if n := svc.count("stat"); n != 0 {
		t.Errorf("%d questions about what was listed", n)
	}
	img := b.mustLookup("c/x:7")
	for range 3 {
		blob, err := b.Blob(t.Context(), "lab", img)
		if err != nil {
			t.Fatal(err)
		}
		if blob.Size() != 5000 {
			t.Errorf("size %d", blob.Size())
		}
		blob.Close()
	}
	if n := svc.count("stat"); n != 1 {
		t.Errorf("%d questions to open an image", n)
	}
	if img := b.mustLookup("c/x:7"); img.Size != 5000 {
		t.Errorf("afterwards the size is %d", img.Size)
	}
}
