// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// What is pushed for a library has the documents of "singularity push": a
// configuration with the architecture, and an index that keeps the others.
func TestLayout_library(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	signed, err := os.ReadFile("../../catalog/inspect/testdata/greet-signed.sif")
	if err != nil {
		t.Fatal(err)
	}
	arm := []byte(strings.Repeat("\x00", 32) + "SIF_MAGIC\x0001\x0004\x00" + strings.Repeat("\x00", 100))
	b := open(t, config{"url": reg.URL, "layout": "library"})
	mustPush(t, b, "e/c/n:1", source(signed))
	// Of the other architecture there is nothing yet under the tag.
	arm64 := open(t, config{"url": reg.URL, "layout": "library"}, func(env *backends.Env) { env.Arch = "arm64" })
	mustPush(t, arm64, "e/c/n:1", source(arm))
	if _, err := arm64.Push(t.Context(), ref(t, "e/c/n:1"), source(signed)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Push over it: %v, want fs.ErrExist", err)
	}
	text, _ := reg.Manifest("e/c/n", "1")
	var index ocispec.Index
	if err := json.Unmarshal(text, &index); err != nil || index.MediaType != ocispec.MediaTypeImageIndex {
		t.Fatalf("the tag leads to %s, %v", text, err)
	}
	got := map[string]map[string]any{}
	for _, d := range index.Manifests {
		text, ok := reg.Manifest("e/c/n", d.Digest.String())
		var m ocispec.Manifest
		if !ok || json.Unmarshal(text, &m) != nil || len(m.Layers) != 1 || m.Config.MediaType != ocitest.SIFConfig {
			t.Fatalf("manifest %s", text)
		}
		byHash, _ := reg.Manifest("e/c/n", strings.Replace(m.Layers[0].Digest.String(), ":", ".", 1))
		if string(byHash) != string(text) {
			t.Errorf("the tag of the digest leads to %s, want %s", byHash, text)
		}
		var c map[string]any
		if err := json.Unmarshal(m.Config.Data, &c); err != nil {
			t.Fatal(err)
		}
		got[d.Platform.OS+"/"+d.Platform.Architecture] = c
	}
	want := map[string]map[string]any{
		"linux/amd64": {"architecture": "amd64", "os": "linux", "rootfs": ocitest.Digest(signed), "signed": true, "encrypted": false},
		"linux/arm64": {"architecture": "arm64", "os": "linux", "rootfs": ocitest.Digest(arm), "signed": false, "encrypted": false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configurations (-want +got):\n%s", diff)
	}
	if img := mustStat(t, b, "e/c/n:1"); img.Digest != ocitest.Digest(signed) {
		t.Errorf("Stat gives %s", img.Digest)
	}
}

// With auth = "bearer" the secret is the token, and is asked for anew when it is
// refused; no token service is asked, and the registry not without it.
func TestLogin_bearer(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret", TokenAuth: true})
	reg.PushSIF("a/b", "1", []byte("private"), nil)
	tokens := []string{"expired", reg.Token(t, "a/b", "pull"), reg.Token(t, "a/b", "pull,push")}
	var handed atomic.Int64
	b := open(t, config{"url": reg.URL, "auth": "bearer"}, func(env *backends.Env) {
		env.Secret = func(_ context.Context, fresh bool) (string, error) {
			if fresh {
				handed.Add(1)
			}
			return tokens[handed.Load()], nil
		}
	})
	if got := string(read(t, b, mustStat(t, b, "a/b:1"), 0, -1)); got != "private" {
		t.Errorf("read %q", got)
	}
	var statuses []int
	for _, r := range reg.Requests() {
		statuses = append(statuses, r.Status)
	}
	if diff := cmp.Diff([]int{http.StatusUnauthorized, http.StatusOK, http.StatusPartialContent}, statuses); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	// It may only read; and a login that is simply wrong is not asked for in a loop.
	if _, err := b.Push(t.Context(), ref(t, "a/b:2"), source([]byte("x"))); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("Push with a token for reading: %v, want ErrUnauthorized", err)
	}
	if handed.Load() != 1 {
		t.Errorf("%d fresh tokens were asked for in a minute, want 1", handed.Load())
	}
}
