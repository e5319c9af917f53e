// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"io/fs"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/library"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/vsif"
)

// What "docker push" put into the registry behind a library does not get into the way of
// what the library knows.
func TestContainer(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "library", Password: "secret", TokenAuth: true})
	srv := librarytest.Start(t, librarytest.Options{Registry: reg, Tokens: true, Prefix: "lib"})
	srv.Add(alpine(sifOf("oci", "02", 20_000)))
	img := ocitest.MakeImage(t, true, nil, map[string]string{"etc/one": "1"}, map[string]string{"etc/two": "2"})
	version := reg.PushImage("lib/library/default/tool", "1.0", img)
	b := newRemote(t, config{"url": srv.URL})
	got := backendtest.Stat(t, b, "library/tool:1.0")
	if got.Format != backends.FormatSIF || got.Digest != vsif.Digest(img.Manifest) || got.Version != version || got.Ref != backendtest.Ref(t, "library/tool:1.0") {
		t.Fatalf("%+v", got)
	}
	if by := backendtest.Stat(t, b, "library/tool:1.0@"+version); by.Digest != got.Digest {
		t.Errorf("by its version %+v", by)
	}
	for _, none := range []string{"library/tool:2.0", "library/none:1"} {
		_, err := b.Stat(t.Context(), backendtest.Ref(t, none))
		backendtest.WantErr(t, none, err, fs.ErrNotExist)
	}
	// The library's own images are as they were, also after the registry was asked in vain.
	if own := backendtest.Stat(t, b, "library/alpine:latest"); vsif.IsDigest(own.Digest) {
		t.Errorf("%+v", own)
	}
}

func TestContainer_show(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	srv := librarytest.Start(t, librarytest.Options{Registry: reg, Prefix: "lib"})
	reg.PushImage("lib/library/default/tool", "1.0", ocitest.MakeImage(t, false, nil, map[string]string{"etc/one": "1"}))
	b := newRemote(t, config{"url": srv.URL, "show": "oci.tar"})
	if got := backendtest.Stat(t, b, "library/tool:1.0"); got.Format != backends.FormatArchive {
		t.Errorf("%+v", got)
	}
	_, err := library.Opener(nil)(t.Context(), backends.Env{Config: config{"show": "tar"}})
	backendtest.WantErr(t, "show", err, fs.ErrInvalid)
}
