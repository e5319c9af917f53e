// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/vsif"
)

// A Container is a container image under one name, as "docker push" pushes it.
type Container struct {
	Ref       backends.Ref // without Version
	Manifest  []byte
	MediaType string            // of the manifest
	Blobs     map[string][]byte // configuration and layers, by digest

	tars []int64 // sizes of the layers, not compressed
}

// container returns one of a few layers; the spec is as backends.ParseRef takes it.
func container(t *testing.T, spec string) Container {
	t.Helper()
	c := Container{Ref: Ref(t, spec), MediaType: ocispec.MediaTypeImageManifest, Blobs: map[string][]byte{}}
	add := func(mediaType string, blob []byte) ocispec.Descriptor {
		sum := digest.FromBytes(blob)
		c.Blobs[sum.String()] = blob
		return ocispec.Descriptor{MediaType: mediaType, Digest: sum, Size: int64(len(blob))}
	}
	m := ocispec.Manifest{MediaType: c.MediaType}
	m.SchemaVersion = 2
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}}
	config.RootFS.Type = "layers"
	for i := range 3 {
		var plain, packed bytes.Buffer
		text := []byte(fmt.Sprint(spec, i))
		w := tar.NewWriter(&plain)
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("etc/", i), Size: int64(len(text)), Mode: 0o644})
		if err == nil {
			_, err = w.Write(text)
		}
		z := gzip.NewWriter(&packed)
		if err = errors.Join(err, w.Close()); err == nil {
			_, err = z.Write(plain.Bytes())
		}
		if err = errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain.Bytes()))
		c.tars = append(c.tars, int64(plain.Len()))
		m.Layers = append(m.Layers, add(ocispec.MediaTypeImageLayerGzip, packed.Bytes()))
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = add(ocispec.MediaTypeImageConfig, text)
	if c.Manifest, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	return c
}

// openContainer opens the backend on a service that has a container image, and some others.
func (s *suite) openContainer(t *testing.T) (r *remote, c Container, img backends.Image) {
	t.Helper()
	c = container(t, "vsoch/tool:1.0")
	r = openSeeded(t, s.Open, backends.HTTPOptions{UserAgent: "backendtest"}, Seed{Images: typical(), Containers: []Container{c}})
	return r, c, stat(t.Context(), t, r.client, c.Ref)
}

var containerTests = []subtest{
	{name: "Containers/stat", containers: true, run: func(t *testing.T, s *suite) {
		r, c, img := s.openContainer(t)
		layers, err := r.client.Layers(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := vsif.NewPlan(int64(len(c.Manifest)), int64(len(layers.Config)), c.tars)
		if err != nil {
			t.Fatal(err)
		}
		if img.Ref != c.Ref || img.Format != backends.FormatSIF || img.Digest != vsif.Digest(c.Manifest) || img.Size != plan.Size ||
			img.Version != digest.FromBytes(c.Manifest).String() {
			t.Errorf("Stat gives %+v, want a SIF of %d bytes with the digest %s", img, plan.Size, vsif.Digest(c.Manifest))
		}
		for _, other := range r.seed.Images {
			wantImage(t, r, other)
		}
	}},
	{name: "Containers/layers", containers: true, run: func(t *testing.T, s *suite) {
		r, c, img := s.openContainer(t)
		layers, err := r.client.Layers(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(layers.Manifest, &m); err != nil || !bytes.Equal(layers.Manifest, c.Manifest) ||
			!bytes.Equal(layers.Config, c.Blobs[m.Config.Digest.String()]) || len(layers.Blobs) != len(m.Layers) || len(layers.Bounds) != len(m.Layers) {
			t.Fatalf("Layers gives %+v, %v", layers, err)
		}
		for i, blob := range layers.Blobs {
			if blob.Digest != m.Layers[i].Digest.String() || layers.Bounds[i] != c.tars[i] {
				t.Errorf("layer %d is %+v, of %d bytes at most; want %s of %d", i, blob, layers.Bounds[i], m.Layers[i].Digest, c.tars[i])
			}
			WantRead(t, r, blob, 0, -1, c.Blobs[blob.Digest])
			WantRead(t, r, blob, 5, 10, c.Blobs[blob.Digest][5:15])
		}
		img.Digest = vsif.Digest(nil)
		if _, err := r.client.Layers(t.Context(), img); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Layers of a version with another digest: %v, want ErrChanged", err)
		}
	}},
	{name: "Containers/open", containers: true, run: func(t *testing.T, s *suite) {
		r, _, img := s.openContainer(t)
		if body, err := r.client.Open(t.Context(), img, 0, -1); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Open gives %v, %v; want errors.ErrUnsupported", body, err)
		}
	}},
	{name: "Containers/archive", containers: true, run: func(t *testing.T, s *suite) {
		r, c, img := s.openContainer(t)
		laidOut, err := archive.New(c.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		ref := c.Ref
		ref.Version = laidOut.Digest()
		got := stat(t.Context(), t, r.client, ref)
		if got.Ref != c.Ref || got.Version != img.Version || got.Digest != laidOut.Digest() || got.Size != laidOut.Size() || got.Format != backends.FormatArchive {
			t.Errorf("Stat(%s) = %+v", ref, got)
		}
		want, err := laidOut.Open(0, -1, func(sum string, _, off, n int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(c.Blobs[sum][off : off+n])), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(want)
		if err != nil {
			t.Fatal(err)
		}
		WantRead(t, r, got, 0, -1, text)
		ref.Version = archive.Algorithm + ":" + digest.FromString("none").Encoded()
		if got, err := r.client.Stat(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%s) = %+v, %v, want fs.ErrNotExist", ref, got, err)
		}
	}},
	{name: "Containers/unfit", containers: true, run: func(t *testing.T, s *suite) {
		r, c, img := s.openContainer(t)
		r.client.Unfit(img, errors.New("a layer is too long"))
		got := stat(t.Context(), t, r.client, c.Ref)
		if got.Format != backends.FormatArchive || got.Version != img.Version {
			t.Errorf("Stat gives %+v, want an archive", got)
		}
	}},
}
