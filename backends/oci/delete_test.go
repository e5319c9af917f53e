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

func TestDelete(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	b := open(t, config{"url": reg.URL})
	for _, tag := range []string{"1", "2", "same"} {
		reg.PushSIF("a/b", tag, []byte("image "+tag), nil)
	}
	body, _ := reg.Manifest("a/b", "same")
	reg.PutManifest("a/b", "twin", ocitest.OCIManifest, body)

	one := mustStat(t, b, "a/b:1")
	stale := one
	stale.Version = mustStat(t, b, "a/b:2").Version
	wantErr(t, "delete of another version", b.Delete(t.Context(), stale), backends.ErrChanged)
	if err := b.Delete(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "second delete", b.Delete(t.Context(), one), fs.ErrNotExist)
	if _, ok := reg.Manifest("a/b", one.Version); ok {
		t.Error("the manifest of a lone tag is still there")
	}

	// One manifest, two tags.
	if err := b.Delete(t.Context(), mustStat(t, b, "a/b:same")); err != nil {
		t.Fatal(err)
	}
	_, err := b.Stat(t.Context(), ref(t, "a/b:same"))
	wantErr(t, "Stat of the deleted tag", err, fs.ErrNotExist)
	if got := string(read(t, b, mustStat(t, b, "a/b:twin"), 0, -1)); got != "image same" {
		t.Errorf("the other tag reads %q", got)
	}
	if err := b.Delete(t.Context(), mustStat(t, b, "a/b:twin")); err != nil {
		t.Fatal(err)
	}
	if _, ok := reg.Manifest("a/b", ocitest.Digest(body)); ok {
		t.Error("the manifest is still there after its last tag")
	}
	if got := names(t, b, "a"); len(got) != 1 || got[0] != "a/b:2" {
		t.Errorf("List = %q, want the one tag that was left alone", got)
	}
}

// A manifest that an index of another tag lists, at whatever depth, is in use.
func TestDelete_listedByAnIndex(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	b := open(t, config{"url": reg.URL})
	putIndex := func(tag string, children ...map[string]any) {
		reg.PutManifest("a/b", tag, ocitest.OCIIndex, map[string]any{"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": children})
	}
	entry := func(reference, mediaType, arch string) map[string]any {
		body, ok := reg.Manifest("a/b", reference)
		if !ok {
			t.Fatalf("no manifest %s", reference)
		}
		return map[string]any{
			"mediaType": mediaType, "digest": ocitest.Digest(body), "size": len(body),
			"platform": map[string]any{"os": "linux", "architecture": arch},
		}
	}
	for _, arch := range []string{"amd64", "arm64"} {
		reg.PushSIF("a/b", "1-"+arch, []byte("image for "+arch), nil)
	}
	putIndex("inner", entry("1-arm64", ocitest.OCIManifest, "arm64"))
	putIndex("1", entry("1-amd64", ocitest.OCIManifest, "amd64"), entry("inner", ocitest.OCIIndex, "arm64"))
	for _, tag := range []string{"1-amd64", "1-arm64", "inner"} {
		img := backends.Image{Ref: ref(t, "a/b:"+tag)}
		if tag != "inner" {
			img = mustStat(t, b, "a/b:"+tag)
		}
		if err := b.Delete(t.Context(), img); err != nil {
			t.Fatalf("delete of %s: %v", tag, err)
		}
		if _, ok := reg.Manifest("a/b", tag); ok {
			t.Errorf("the tag %s is still there", tag)
		}
	}
	for _, version := range []string{"a/b:1", "a/b:1@arm64"} {
		if got := string(read(t, b, mustStat(t, b, version), 0, -1)); !strings.HasPrefix(got, "image for ") {
			t.Errorf("%s reads %q", version, got)
		}
	}
}

// One architecture of a tag is not deleted with all the others.
func TestDelete_architecture(t *testing.T) {
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
	index := reg.PutManifest("a/b", "1", ocitest.OCIIndex, map[string]any{"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": children})
	for _, version := range []string{"amd64", "arm64", children[0]["digest"].(string), children[1]["digest"].(string)} {
		img := mustStat(t, b, "a/b:1@"+version)
		img.Ref.Version = version
		wantErr(t, "delete of "+version+" alone", b.Delete(t.Context(), img), backends.ErrChanged)
	}
	for _, tag := range []string{"1", "1-amd64", "1-arm64"} {
		mustStat(t, b, "a/b:"+tag)
	}
	img := mustStat(t, b, "a/b:1@"+index)
	img.Ref.Version = index
	if err := b.Delete(t.Context(), img); err != nil {
		t.Errorf("delete of the index by its digest: %v", err)
	}
	_, err := b.Stat(t.Context(), ref(t, "a/b:1"))
	wantErr(t, "Stat of the deleted tag", err, fs.ErrNotExist)
}

func TestDelete_dockerTwins(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	b := open(t, config{"url": reg.URL})
	digest := putDocker(t, reg, "a/b", "1")
	putDocker(t, reg, "a/b", "2")
	for _, tag := range []string{"1", "2"} {
		if img := mustStat(t, b, "a/b:"+tag); img.Version != digest {
			t.Fatalf("%+v, want %s", img, digest)
		}
	}
	err := b.Delete(t.Context(), backends.Image{Ref: ref(t, "a/b:1"), Version: digest})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := reg.Manifest("a/b", "2"); !ok {
		t.Error("the other tag is gone too")
	}
	if _, ok := reg.Manifest("a/b", "1"); ok {
		t.Error("the tag is still there")
	}
}

func TestDelete_refused(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{false, true} {
		reg := ocitest.Start(t, ocitest.Options{})
		b := open(t, config{"url": reg.URL})
		digest := reg.PushSIF("a/b", "1", []byte("kept"), nil)
		if shared {
			body, _ := reg.Manifest("a/b", "1")
			reg.PutManifest("a/b", "2", ocitest.OCIManifest, body)
		}
		err := b.Delete(t.Context(), mustStat(t, b, "a/b:1"))
		wantErr(t, "delete", err, errors.ErrUnsupported)
		if err == nil || !strings.Contains(err.Error(), "REGISTRY_STORAGE_DELETE_ENABLED") {
			t.Errorf("error %v does not say what to do", err)
		}
		if img := mustStat(t, b, "a/b:1"); img.Version != digest {
			t.Errorf("the tag means %s after a refused delete, want %s", img.Version, digest)
		}
	}
}

func TestDelete_breaksHalfWay(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	b := open(t, config{"url": reg.URL})
	digest := reg.PushSIF("a/b", "1", []byte("kept"), nil)
	body, _ := reg.Manifest("a/b", "1")
	reg.PutManifest("a/b", "2", ocitest.OCIManifest, body)
	img := mustStat(t, b, "a/b:1")
	// The first DELETE asks whether deleting works at all.
	deletes := 0
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodDelete {
				if deletes++; deletes == 2 {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
			}
			next.ServeHTTP(w, req)
		})
	})
	wantErr(t, "delete", b.Delete(t.Context(), img), backends.ErrUnavailable)
	if deletes != 2 {
		t.Fatalf("%d DELETEs, want 2", deletes)
	}
	for _, tag := range []string{"1", "2"} {
		if now := mustStat(t, b, "a/b:"+tag); now.Version != digest {
			t.Errorf("tag %s means %s, want %s", tag, now.Version, digest)
		}
	}
}
