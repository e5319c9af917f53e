// SPDX-License-Identifier: Apache-2.0

package ocitest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// Media types of container images.
const (
	OCIConfig      = "application/vnd.oci.image.config.v1+json"
	OCILayer       = "application/vnd.oci.image.layer.v1.tar+gzip"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerConfig   = "application/vnd.docker.container.image.v1+json"
	DockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// An Image is a container image, as "docker push" pushes one.
type Image struct {
	Manifest  []byte
	MediaType string            // of the manifest
	Blobs     map[string][]byte // configuration and layers, by digest
}

// Greeting is what the entrypoint of NewImage prints.
const Greeting = "hello from a container"

// NewImage returns a container image of two layers: a statically linked shell,
// which docker says to put first, and what it prints. It needs busybox.
func NewImage(t testing.TB, docker bool) Image {
	t.Helper()
	Need(t, "busybox")
	shell, err := os.ReadFile("/usr/bin/busybox")
	if os.IsNotExist(err) {
		shell, err = os.ReadFile("/bin/busybox")
	}
	if err != nil {
		t.Fatal(err)
	}
	return MakeImage(t, docker, map[string]any{
		"Entrypoint": []string{"/bin/busybox", "cat"}, "Cmd": []string{"/etc/greeting"},
		"Env": []string{"PATH=/bin", "GREETING=hello"}, "WorkingDir": "/", "Labels": map[string]string{"maintainer": "vsoch"},
	}, map[string]string{"bin/busybox": string(shell)}, map[string]string{"etc/greeting": Greeting + "\n"})
}

// MakeImage returns an image with that configuration and a layer for each set of
// files, by name. Those in bin can be executed.
func MakeImage(t testing.TB, docker bool, config map[string]any, layers ...map[string]string) Image {
	t.Helper()
	manifestType, configType, layerType := OCIManifest, OCIConfig, OCILayer
	if docker {
		manifestType, configType, layerType = DockerManifest, DockerConfig, DockerLayer
	}
	img := Image{MediaType: manifestType, Blobs: map[string][]byte{}}
	add := func(mediaType string, blob []byte) map[string]any {
		img.Blobs[Digest(blob)] = blob
		return map[string]any{"mediaType": mediaType, "digest": Digest(blob), "size": len(blob)}
	}
	var descriptors []any
	var diffs []string
	for _, files := range layers {
		plain := tarOf(t, files)
		diffs = append(diffs, Digest(plain))
		descriptors = append(descriptors, add(layerType, gzipped(t, plain)))
	}
	configText := toJSON(t, map[string]any{
		"created": "2024-02-29T12:30:00Z", "architecture": "amd64", "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	img.Manifest = toJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": add(configType, configText), "layers": descriptors,
	})
	return img
}

// WithLayer returns img with another blob as the first of its layers, of which its
// configuration says what it said before.
func (img Image) WithLayer(t testing.TB, blob []byte) Image {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(img.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	layer := m["layers"].([]any)[0].(map[string]any)
	layer["digest"], layer["size"] = Digest(blob), len(blob)
	img.Blobs = maps.Clone(img.Blobs)
	img.Blobs[Digest(blob)] = blob
	img.Manifest = toJSON(t, m)
	return img
}

// LongLayer is a gzip layer whose end tells of a shorter tar than it has: there are two
// members, and it tells the size of the second.
func LongLayer(t testing.TB) []byte {
	t.Helper()
	return append(gzipped(t, make([]byte, 1<<20)), gzipped(t, make([]byte, 8<<10))...)
}

// PushImage stores img as repo:tag and returns the digest of its manifest.
func (r *Registry) PushImage(repo, tag string, img Image) string {
	r.t.Helper()
	for _, blob := range img.Blobs {
		r.PutBlob(repo, blob)
	}
	return r.PutManifest(repo, tag, img.MediaType, img.Manifest)
}

// PushIndex stores img as the one of repo:tag for an architecture.
func (r *Registry) PushIndex(repo, tag, arch string, img Image) {
	r.t.Helper()
	digest := r.PushImage(repo, Digest(img.Manifest), img)
	r.PutManifest(repo, tag, OCIIndex, map[string]any{"schemaVersion": 2, "mediaType": OCIIndex, "manifests": []any{map[string]any{
		"mediaType": img.MediaType, "digest": digest, "size": len(img.Manifest), "platform": map[string]string{"architecture": arch, "os": "linux"},
	}}})
}

func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		mode := int64(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(files[name])), Mode: mode})
		if err == nil {
			_, err = w.Write([]byte(files[name]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
