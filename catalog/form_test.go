// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"io"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/catalog"
)

// A container image is a SIF and an archive, which do not take each other's place in the
// index; one that proves to make no SIF is an archive alone.
func TestAs(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	good := ocitest.MakeImage(t, true, nil, map[string]string{"etc/one": "1"})
	reg.PushImage("a/good", "1", good)
	bad := good.WithLayer(t, ocitest.LongLayer(t))
	reg.PushImage("a/bad", "1", bad)
	backend, err := oci.Open(t.Context(), backends.Env{
		Remote: "hub", Type: "oci", HTTP: backends.NewHTTPClient(backends.HTTPOptions{}), Config: map[string]any{"url": reg.URL}, Arch: "amd64",
	})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, newService(), func(b *bench) {
		b.extra = []catalog.Remote{{Name: "hub", Type: "oci", URL: reg.URL, Client: backends.NewClient("hub", backend, backends.ClientOptions{})}}
	})
	ctx := t.Context()
	look := func(name string) backends.Image {
		t.Helper()
		img, err := b.Lookup(ctx, "hub", mustRef(t, name))
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	read := func(img backends.Image) ([]byte, error) {
		blob, err := b.Blob(ctx, "hub", img)
		if err != nil {
			return nil, err
		}
		defer blob.Close()
		return io.ReadAll(io.NewSectionReader(blob, 0, blob.Size()))
	}
	for range 2 { // and once more out of the index
		img := look("a/good:1")
		if img.Digest != vsif.Digest(good.Manifest) || img.Format != backends.FormatSIF {
			t.Errorf("%+v", img)
		}
		a, err := b.As(ctx, "hub", img, backends.FormatArchive)
		if err != nil || a.Format != backends.FormatArchive || a.Ref != img.Ref || a.Version != img.Version || a.Size == img.Size {
			t.Errorf("as an archive %+v, %v", a, err)
		}
		for _, form := range []backends.Image{img, a} {
			if got, err := read(form); err != nil || int64(len(got)) != form.Size {
				t.Errorf("%s: %d bytes of %d, %v", form.Format, len(got), form.Size, err)
			}
		}
		if same, err := b.As(ctx, "hub", img, backends.FormatSIF); err != nil || same.Digest != img.Digest {
			t.Errorf("as itself %+v, %v", same, err)
		}
	}

	img := look("a/bad:1")
	if img.Format != backends.FormatSIF {
		t.Fatalf("%+v", img)
	}
	_, err = read(img)
	wantErr(t, "a layer that is too long", err, vsif.ErrLayer)
	b.Failed("hub", img, err)
	if img = look("a/bad:1"); img.Format != backends.FormatArchive || img.Labels["com.github.sregfs.archive"] == "" {
		t.Errorf("afterwards %+v", img)
	}
	if got, err := read(img); err != nil || int64(len(got)) != img.Size {
		t.Errorf("its archive: %d bytes of %d, %v", len(got), img.Size, err)
	}
}
