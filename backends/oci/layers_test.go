// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/vsif"
)

const whyArchive = "com.github.sregfs.archive"

// sizeOf is the size of the file of img by the sizes of its tars, which gzip tells.
func sizeOf(t *testing.T, img ocitest.Image) int64 {
	t.Helper()
	m := manifestOf(t, img)
	var bounds []int64
	for _, l := range m.Layers {
		blob := img.Blobs[l.Digest]
		end := blob[len(blob)-4:]
		bounds = append(bounds, int64(end[0])|int64(end[1])<<8|int64(end[2])<<16|int64(end[3])<<24)
	}
	plan, err := vsif.NewPlan(int64(len(img.Manifest)), m.Config.Size, bounds)
	if err != nil {
		t.Fatal(err)
	}
	return plan.Size
}

type descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls,omitempty"`
}

type imageManifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

func manifestOf(t *testing.T, img ocitest.Image) (m imageManifest) {
	t.Helper()
	if err := json.Unmarshal(img.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// changed returns img with another manifest.
func changed(t *testing.T, img ocitest.Image, change func(*imageManifest)) ocitest.Image {
	t.Helper()
	m := manifestOf(t, img)
	change(&m)
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	img.Manifest = text
	return img
}

func TestLayers(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	img := smallImage(t, true)
	version := reg.PushImage("a/image", "1", img)
	b := open(t, config{"url": reg.URL})
	got := mustStat(t, b, "a/image:1")
	want := backends.Image{
		Ref: ref(t, "a/image:1"), Size: sizeOf(t, img), Digest: vsif.Digest(img.Manifest), Version: version,
		URL: "docker://" + reg.Host + "/a/image:1", Format: backends.FormatSIF,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// The configuration and the ends of two layers.
	if n, read := reg.Count("GET", "/blobs/"), reg.BlobBytes(); n != 3 || read > 2_000 {
		t.Errorf("%d requests for %d bytes of blobs", n, read)
	}
	reg.Forget()
	layers, err := b.Layers(t.Context(), got)
	if err != nil {
		t.Fatal(err)
	}
	if len(reg.Requests()) != 0 {
		t.Errorf("asked again: %v", reg.Requests())
	}
	m := manifestOf(t, img)
	if !bytes.Equal(layers.Manifest, img.Manifest) || !bytes.Equal(layers.Config, img.Blobs[m.Config.Digest]) || len(layers.Blobs) != len(m.Layers) {
		t.Fatalf("%+v", layers)
	}
	for i, blob := range layers.Blobs {
		if !bytes.Equal(read(t, b, blob, 0, -1), img.Blobs[m.Layers[i].Digest]) {
			t.Errorf("layer %d has other bytes", i)
		}
	}
	if plan, err := vsif.NewPlan(int64(len(layers.Manifest)), int64(len(layers.Config)), layers.Bounds); err != nil || plan.Size != got.Size {
		t.Errorf("the bounds %v make another file: %v", layers.Bounds, err)
	}
	_, err = b.Open(t.Context(), got, 0, -1)
	wantErr(t, "the file itself", err, errors.ErrUnsupported)

	// The archive of the same image has a name of its own.
	a := mustStat(t, b, "a/image:1@"+archive.Algorithm+strings.TrimPrefix(got.Digest, vsif.Algorithm))
	if a.Format != backends.FormatArchive || a.Version != version || a.URL != got.URL || !bytes.Equal(read(t, b, a, 0, -1), archiveOf(t, img)) {
		t.Errorf("its archive is %+v", a)
	}
	_, err = b.Stat(t.Context(), ref(t, "a/image:1@"+archive.Algorithm+":"+strings.Repeat("0", 64)))
	wantErr(t, "no archive", err, fs.ErrNotExist)
	_, err = b.Layers(t.Context(), backends.Image{Ref: got.Ref, Version: version, Digest: vsif.Digest(nil)})
	wantErr(t, "another image", err, backends.ErrChanged)
}

// What a size is made of is asked for once, by all processes of a machine.
func TestLayers_restart(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushImage("a/image", "1", smallImage(t, false))
	dir := t.TempDir()
	again := func() remote {
		reg.Forget()
		return open(t, config{"url": reg.URL}, func(env *backends.Env) { env.Cache = dir })
	}
	first := mustStat(t, again(), "a/image:1")
	b := again()
	second := mustStat(t, b, "a/image:1")
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("(-first +second):\n%s", diff)
	}
	if _, err := b.Layers(t.Context(), second); err != nil {
		t.Error(err)
	}
	if n := reg.Count("GET", "/"); n != 0 {
		t.Errorf("%d requests after a restart: %v", n, reg.Requests())
	}
	// One that proved unfit is so for ever.
	b.Unfit(second, fmt.Errorf("%w: layer 1 is too long", vsif.ErrLayer))
	for _, b := range []remote{b, again()} {
		got := mustStat(t, b, "a/image:1")
		if got.Format != backends.FormatArchive || !strings.Contains(got.Labels[whyArchive], "layer 1 is too long") {
			t.Errorf("%+v", got)
		}
		for e, err := range b.List(t.Context(), "a") {
			if err != nil || e.Image.Format != backends.FormatArchive {
				t.Errorf("listed as %+v, %v", e.Image, err)
			}
		}
	}
}

func TestLayers_unfit(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	b := open(t, config{"url": reg.URL})
	windows := []byte(`{"os":"windows","rootfs":{"diff_ids":["sha256:1","sha256:2"]}}`)
	for name, c := range map[string]struct {
		change func(*imageManifest)
		why    string
	}{
		"foreign": {func(m *imageManifest) {
			m.Layers[0].MediaType, m.Layers[0].URLs = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []string{"https://example.org"}
		}, "not in the registry"},
		"encrypted": {func(m *imageManifest) { m.Layers[0].MediaType += "+encrypted" }, "encrypted"},
		"unknown":   {func(m *imageManifest) { m.Layers[0].MediaType = "text/plain" }, "text/plain"},
		"windows": {func(m *imageManifest) {
			m.Config.Digest, m.Config.Size = ocitest.Digest(windows), int64(len(windows))
		}, `for "windows"`},
		"no-layers": {func(m *imageManifest) { m.Layers = []descriptor{} }, "there are 0"},
		"one-less":  {func(m *imageManifest) { m.Layers = m.Layers[:1] }, "the manifest has 1, its configuration 2"},
	} {
		img := smallImage(t, false)
		img.Blobs[ocitest.Digest(windows)] = windows
		reg.PushImage("a/image", name, changed(t, img, c.change))
		got := mustStat(t, b, "a/image:"+name)
		if got.Format != backends.FormatArchive || !strings.Contains(got.Labels[whyArchive], c.why) {
			t.Errorf("%s is %+v, want an archive because %q", name, got, c.why)
		}
	}
}

// The size is made of what the digests stand for, or there is none.
func TestLayers_lies(t *testing.T) {
	t.Parallel()
	img := smallImage(t, false)
	m := manifestOf(t, img)
	layer := "/blobs/" + m.Layers[0].Digest
	for name, answer := range map[string]http.HandlerFunc{
		"no ranges": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(m.Layers[0].Size))
			_, _ = w.Write(img.Blobs[m.Layers[0].Digest])
		},
		"larger blob": func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Range", strings.Replace(req.Header.Get("Range"), "=", " ", 1)+fmt.Sprintf("/%d", m.Layers[0].Size+1))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("1234"))
		},
		"fewer bytes": func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Range", strings.Replace(req.Header.Get("Range"), "=", " ", 1)+fmt.Sprintf("/%d", m.Layers[0].Size))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write([]byte("12"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := ocitest.Start(t, ocitest.Options{})
			reg.PushImage("a/image", "1", img)
			reg.Use(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, layer) {
						answer(w, req)
						return
					}
					next.ServeHTTP(w, req)
				})
			})
			b := open(t, config{"url": reg.URL})
			got, err := b.Stat(t.Context(), ref(t, "a/image:1"))
			if name == "no ranges" { // the layer is small: it is read to its end
				if err != nil || got.Size != sizeOf(t, img) {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			wantErr(t, name, err, backends.ErrBadAnswer)
			reg.Heal()
			if got := mustStat(t, b, "a/image:1"); got.Size != sizeOf(t, img) {
				t.Errorf("later %+v", got)
			}
		})
	}
}

// An image with a layer that the registry has not is there nevertheless.
func TestLayers_missing(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	img := smallImage(t, false)
	reg.PushImage("a/image", "1", img)
	layer := manifestOf(t, img).Layers[1].Digest
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, layer) {
				http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	got := mustStat(t, open(t, config{"url": reg.URL}), "a/image:1")
	if got.Format != backends.FormatArchive || !strings.Contains(got.Labels[whyArchive], layer) {
		t.Errorf("%+v", got)
	}
}

// The ends are asked for all at once.
func TestLayers_parallel(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	var files []map[string]string
	for i := range 6 {
		files = append(files, map[string]string{fmt.Sprint(i): "x"})
	}
	img := ocitest.MakeImage(t, false, nil, files...)
	reg.PushImage("a/image", "1", img)
	var all sync.WaitGroup
	all.Add(len(files) + 1) // and the configuration
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
				all.Done()
				all.Wait()
			}
			next.ServeHTTP(w, req)
		})
	})
	if got := mustStat(t, open(t, config{"url": reg.URL}), "a/image:1"); got.Size != sizeOf(t, img) {
		t.Errorf("%+v", got)
	}
}

func TestShow(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushImage("a/image", "1", smallImage(t, false))
	for show, want := range map[string]string{"": "sif", "sif": "sif", "both": "sif", "oci.tar": "oci.tar"} {
		cfg := config{"url": reg.URL}
		if show != "" {
			cfg["show"] = show
		}
		b := open(t, cfg)
		if got := mustStat(t, b, "a/image:1"); got.Format != want {
			t.Errorf("show = %q: %+v", show, got)
		}
		for e, err := range b.List(t.Context(), "a") {
			listed := want
			if show == "both" {
				listed = "oci.tar" // see backends.ArchiveLister
			}
			if err != nil || e.Image.Format != listed {
				t.Errorf("show = %q lists %+v, %v", show, e.Image, err)
			}
		}
	}
}

// Each architecture is a file of its own, and an archive.
func TestLayers_architectures(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	var entries []any
	images := map[string]ocitest.Image{}
	for _, arch := range []string{"amd64", "arm64"} {
		img := ocitest.MakeImage(t, true, map[string]any{"Cmd": []string{arch}}, map[string]string{"arch": arch})
		images[arch] = img
		digest := reg.PushImage("a/multi", "only-"+arch, img)
		entries = append(entries, map[string]any{"mediaType": img.MediaType, "digest": digest, "size": len(img.Manifest),
			"platform": map[string]string{"architecture": arch, "os": "linux"}})
	}
	reg.PutManifest("a/multi", "1", ocitest.OCIIndex, map[string]any{"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": entries})
	b := open(t, config{"url": reg.URL})
	for name, arch := range map[string]string{"a/multi:1": "amd64", "a/multi:1@arm64": "arm64"} {
		got := mustStat(t, b, name)
		if got.Digest != vsif.Digest(images[arch].Manifest) || got.Size != sizeOf(t, images[arch]) {
			t.Errorf("%s is %+v, want that of %s", name, got, arch)
		}
		a := mustStat(t, b, "a/multi:1@"+archive.Algorithm+strings.TrimPrefix(got.Digest, vsif.Algorithm))
		if !bytes.Equal(read(t, b, a, 0, -1), archiveOf(t, images[arch])) {
			t.Errorf("%s has the archive %+v", name, a)
		}
	}
}

// An image of which only the name is known is read as it is shown.
func TestOpen_onlyNamed(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	img := smallImage(t, false)
	reg.PushImage("a/image", "1", img)
	named := backends.Image{Ref: ref(t, "a/image:1"), Size: -1}
	_, err := open(t, config{"url": reg.URL}).Open(t.Context(), named, 0, -1)
	wantErr(t, "a SIF", err, errors.ErrUnsupported)
	if !bytes.Equal(read(t, open(t, config{"url": reg.URL, "show": "oci.tar"}), named, 0, -1), archiveOf(t, img)) {
		t.Error("other bytes")
	}
}

// However many images have a layer, and are looked at at once, its end is asked for once.
func TestLayers_shared(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	const images = 8
	var base string
	for i := range images {
		img := ocitest.MakeImage(t, false, nil, map[string]string{"base": "x"}, map[string]string{"own": fmt.Sprint(i)})
		reg.PushImage(fmt.Sprintf("a/image%d", i), "1", img)
		base = manifestOf(t, img).Layers[0].Digest
	}
	reg.Forget()
	b := open(t, config{"url": reg.URL})
	var all sync.WaitGroup
	for i := range images {
		all.Go(func() {
			if _, err := b.Stat(t.Context(), ref(t, fmt.Sprintf("a/image%d:1", i))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := reg.Count("GET", "/blobs/"+base); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
