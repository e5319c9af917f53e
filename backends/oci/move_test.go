// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// An index goes with all that it lists, and without a byte of an image.
func TestMove_index(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	b := open(t, config{"url": reg.URL})
	var children []map[string]any
	for _, arch := range []string{"amd64", "arm64"} {
		digest := reg.PushSIF("a/b", "1-"+arch, []byte("image for "+arch), nil)
		body, _ := reg.Manifest("a/b", digest)
		children = append(children, map[string]any{
			"mediaType": ocitest.OCIManifest, "digest": digest, "size": len(body),
			"platform": map[string]any{"os": "linux", "architecture": arch},
		})
	}
	reg.PutManifest("a/b", "1", ocitest.OCIIndex, map[string]any{"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": children})
	reg.Forget()
	if _, err := b.Move(t.Context(), mustStat(t, b, "a/b:1"), ref(t, "a/other:2"), ""); err != nil {
		t.Fatal(err)
	}
	if n := reg.BlobBytes(); n != 0 {
		t.Errorf("%d bytes of images travelled", n)
	}
	for _, version := range []string{"amd64", "arm64"} {
		if got := string(read(t, b, mustStat(t, b, "a/other:2@"+version), 0, -1)); got != "image for "+version {
			t.Errorf("%s reads %q", version, got)
		}
		mustStat(t, b, "a/b:1-"+version)
	}
	_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
	wantErr(t, "Stat of the old name", err, fs.ErrNotExist)
}

// Where the old name cannot be taken away, nothing gets the new one: neither here nor
// by a copy.
func TestMove_refused(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	reg.PushSIF("a/b", "1", []byte("kept"), nil)
	_, err := b.Move(t.Context(), mustStat(t, b, "a/b:1"), ref(t, "a/b:2"), "")
	wantErr(t, "Move", err, fs.ErrPermission)
	if errors.Is(err, errors.ErrUnsupported) || err != nil && !strings.Contains(err.Error(), "REGISTRY_STORAGE_DELETE_ENABLED") {
		t.Errorf("error %v does not say what to do", err)
	}
	_, err = b.Stat(t.Context(), ref(t, "a/b:2"))
	wantErr(t, "Stat of the new name", err, fs.ErrNotExist)
}

// Broken off half-way, both tags are what they were.
func TestMove_breaksHalfWay(t *testing.T) {
	t.Parallel()
	for _, taken := range []bool{false, true} {
		reg := ocitest.Start(t, ocitest.Options{Delete: true})
		b := open(t, config{"url": reg.URL})
		digest := reg.PushSIF("a/b", "1", []byte("kept"), nil)
		img, replaces := mustStat(t, b, "a/b:1"), ""
		if taken {
			replaces = reg.PushSIF("a/b", "2", []byte("kept, too"), nil)
		}
		// The first DELETE asks whether deleting works at all, as the second does.
		deletes := 0
		reg.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				if req.Method == http.MethodDelete {
					if deletes++; deletes == 3 {
						w.WriteHeader(http.StatusInternalServerError)
						return
					}
				}
				next.ServeHTTP(w, req)
			})
		})
		_, err := b.Move(t.Context(), img, ref(t, "a/b:2"), replaces)
		wantErr(t, "Move", err, backends.ErrUnavailable)
		if now := mustStat(t, b, "a/b:1"); now.Version != digest {
			t.Errorf("the old tag means %s, want %s", now.Version, digest)
		}
		now, err := b.Stat(t.Context(), ref(t, "a/b:2"))
		if taken && (err != nil || now.Version != replaces) || !taken && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the new tag: %+v, %v", now, err)
		}
	}
}
