// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"io/fs"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// A file without an extension is looked at when it is opened. One that is no image is
// listed no more, also after a restart, until it is another version.
func TestBlob_noImage(t *testing.T) {
	for name, namesOnly := range map[string]bool{"names": true, "facts": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				svc := newService()
				svc.namesOnly = namesOnly
				svc.putPlain("c/good:1", tiny(t, "good"))
				svc.putPlain("c/text:1", []byte("no image at all"))
				svc.put("c/text:2", []byte("nor is this one, but it has an extension"))
				b := newBench(t, svc)
				all := []string{"good:1", "text:1", "text:2"}
				if diff := cmp.Diff(all, b.names("c")); diff != "" {
					t.Fatal(diff)
				}
				open := func(ref string, want error) {
					t.Helper()
					blob, err := b.Blob(t.Context(), "lab", b.mustLookup(ref))
					if wantErr(t, "opening "+ref, err, want); err == nil {
						blob.Close()
					}
				}
				open("c/good:1", nil)
				open("c/text:2", nil)
				b.mustLookup("c/text:1")
				b.took()
				open("c/text:1", backends.ErrNotImage)
				open("c/text:1", fs.ErrPermission)
				if diff := cmp.Diff([]string{"listing c"}, b.took()); diff != "" {
					t.Errorf("events (-want +got): %s", diff)
				}
				known := []string{"good:1", "text:2"}
				opens := svc.count("open")
				for range 2 {
					if diff := cmp.Diff(known, b.names("c")); diff != "" {
						t.Error(diff)
					}
					if err := b.Refresh(t.Context(), "lab", "c"); err != nil {
						t.Fatal(err)
					}
					if recs, err := backends.Collect(b.Images(t.Context(), verbs.ImagesOptions{Query: "text", Remote: "lab"})); err != nil || len(recs) != 1 {
						t.Errorf("images: %+v, %v", recs, err)
					}
					time.Sleep(10 * time.Minute)
					open("c/text:1", backends.ErrNotImage)
					b.restart()
				}
				if n := svc.count("open"); n != opens {
					t.Errorf("it was read %d times more", n-opens)
				}
				svc.putPlain("c/text:1", tiny(t, "text"))
				if err := b.Refresh(t.Context(), "lab", "c"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				open("c/text:1", nil)
				if diff := cmp.Diff(all, b.names("c")); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// Looking at files without an extension costs no question, however old the listing is;
// at others it does.
func TestGlimpse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.namesOnly = true
		svc.putPlain("c/plain:1", tiny(t, "plain"))
		svc.put("c/other:1", tiny(t, "other"))
		b := newBench(t, svc)
		ref := backends.Ref{Collection: "c", Name: "plain", Tag: "1"}
		if img, ok := b.Glimpse("lab", ref); ok {
			t.Errorf("before a listing: %+v", img)
		}
		b.names("c")
		time.Sleep(time.Hour)
		img, ok := b.Glimpse("lab", ref)
		if want := (backends.Image{Ref: ref, Size: -1, Format: backends.FormatPlain}); !ok || cmp.Diff(want, img) != "" {
			t.Errorf("Glimpse = %+v, %v", img, ok)
		}
		other := ref
		other.Name = "other"
		for _, ref := range []backends.Ref{other, {Collection: "c", Name: "none", Tag: "1"}} {
			if img, ok := b.Glimpse("lab", ref); ok {
				t.Errorf("Glimpse of %v = %+v", ref, img)
			}
		}
		if n := svc.count("stat"); n != 0 {
			t.Errorf("%d questions", n)
		}
		want := b.mustLookup("c/plain:1")
		time.Sleep(time.Hour)
		if img, ok := b.Glimpse("lab", ref); !ok || img.Version != want.Version || img.Size != want.Size {
			t.Errorf("once it was looked up: %+v, %v", img, ok)
		}
	})
}

// Where a service keeps no format, an image that was opened is what its first bytes are,
// for its listing too.
func TestBlob_format(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		svc.putAs("c/squash:1", tiny(t, ""), "")
		svc.putAs("c/other:1", []byte("something else"), "")
		b := newBench(t, svc)
		formats := func() map[string]string {
			all := map[string]string{}
			for e, err := range b.List(t.Context(), "lab", "c") {
				if err != nil {
					t.Fatal(err)
				}
				all[e.Image.Ref.Name] = e.Image.Format
			}
			return all
		}
		if diff := cmp.Diff(map[string]string{"squash": "", "other": ""}, formats()); diff != "" {
			t.Fatal(diff)
		}
		open := func() (told []string) {
			for _, ref := range []string{"c/squash:1", "c/other:1"} {
				blob, err := b.Blob(t.Context(), "lab", b.mustLookup(ref))
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				blob.Close()
			}
			return b.took()
		}
		if told := open(); !slices.Contains(told, "listing c") {
			t.Errorf("told is %q, want that the names in c changed", told)
		}
		if told := open(); told != nil {
			t.Errorf("opened again, told is %q", told)
		}
		if err := b.Refresh(t.Context(), "lab", "c"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"squash": "simg", "other": ""}, formats()); diff != "" {
			t.Error(diff)
		}
	})
}
