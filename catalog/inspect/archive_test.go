// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	testConfig = `{"created":"2024-02-29T12:30:00.25Z","architecture":"arm64","variant":"v8","os":"linux",
		"config":{"Entrypoint":["/bin/hello"],"Cmd":["a","b c"],"Env":["PATH=/bin"],"WorkingDir":"/w","User":"1000",
		"ExposedPorts":{"80/tcp":{},"22/tcp":{}},"Labels":{"maintainer":"vsoch\u0000"}},
		"history":[{"created_by":"ADD x"},{"created_by":"ENV y","empty_layer":true},{"created_by":"RUN z"},{"created_by":"one too many"}]}`
	testManifest = `{"schemaVersion":2,"config":{"mediaType":"c","digest":"sha256:CONFIG","size":9},
		"layers":[{"mediaType":"l","digest":"sha256:LAYER","size":700},{"mediaType":"l","digest":"sha256:OTHER","size":8}],
		"annotations":{"org.opencontainers.image.base.name":"docker.io/library/debian:12","org.opencontainers.image.base.digest":"sha256:BASE"}}`
	testIndex = `{"schemaVersion":2,"manifests":[{"digest":"sha256:MANIFEST","size":1}]}`
)

// names gives the placeholders digests.
var names = strings.NewReplacer("CONFIG", strings.Repeat("c", 64), "LAYER", strings.Repeat("a", 64), "OTHER", strings.Repeat("b", 64),
	"MANIFEST", strings.Repeat("d", 64))

// tarFile returns an archive of names and contents.
func tarFile(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		name, content := names.Replace(files[i]), names.Replace(files[i+1])
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadArchive(t *testing.T) {
	t.Parallel()
	layer := strings.Repeat("x", 700_000)
	want := &Facts{
		Format: "oci.tar", Arch: "arm64/v8", Created: "2024-02-29T12:30:00Z", ID: names.Replace("sha256:CONFIG"),
		Labels: map[string]string{"maintainer": "vsoch"},
		Config: &Config{Entrypoint: []string{"/bin/hello"}, Cmd: []string{"a", "b c"}, Env: []string{"PATH=/bin"}, WorkingDir: "/w",
			User: "1000", Ports: []string{"22/tcp", "80/tcp"}},
		Layers: []Layer{
			{Digest: names.Replace("sha256:LAYER"), MediaType: "l", Size: 700, CreatedBy: "ADD x"},
			{Digest: names.Replace("sha256:OTHER"), MediaType: "l", Size: 8, CreatedBy: "RUN z"},
		},
		History: []Step{{CreatedBy: "ADD x"}, {CreatedBy: "ENV y", Empty: true}, {CreatedBy: "RUN z"}, {CreatedBy: "one too many"}},
		Base:    &Base{Name: "docker.io/library/debian:12", Digest: "sha256:BASE"},
	}
	// The same of its two documents, as of a SIF.
	asSIF := *want
	asSIF.Format = "sif"
	if diff := cmp.Diff(&asSIF, Container([]byte(names.Replace(testManifest)), []byte(testConfig)), cmp.AllowUnexported(Facts{})); diff != "" {
		t.Errorf("its documents (-want +got):\n%s", diff)
	}
	for name, files := range map[string][]string{
		"ours":  {"blobs/sha256/MANIFEST", testManifest, "blobs/sha256/CONFIG", testConfig, "index.json", testIndex, "blobs/sha256/LAYER", layer},
		"other": {"./blobs/sha256/LAYER", layer, "./blobs/sha256/CONFIG", testConfig, "./oci-layout", "{}", "./blobs/sha256/MANIFEST", testManifest, "./index.json", testIndex},
	} {
		r := &counting{ReaderAt: bytes.NewReader(tarFile(t, files...))}
		got, err := Read(t.Context(), r, int64(r.ReaderAt.(*bytes.Reader).Len()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(Facts{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if n := r.reads.Load(); name == "ours" && n != 1 || n > 3 {
			t.Errorf("%s: %d reads", name, n)
		}
	}
}

func TestReadArchive_broken(t *testing.T) {
	t.Parallel()
	whole := tarFile(t, "blobs/sha256/MANIFEST", testManifest, "blobs/sha256/CONFIG", testConfig, "index.json", testIndex)
	many := make([]string, 0, 300)
	for i := range 150 {
		many = append(many, fmt.Sprint("file", i), "")
	}
	for name, c := range map[string]struct {
		file   []byte
		format string
		notes  int
	}{
		"some other archive": {tarFile(t, many...), "unknown", 0},
		"no images":          {tarFile(t, "index.json", `{}`), "oci.tar", 1},
		"two images":         {tarFile(t, "index.json", `{"manifests":[{"digest":"sha256:MANIFEST"},{}]}`, "blobs/sha256/MANIFEST", testManifest), "oci.tar", 2},
		"no manifest":        {tarFile(t, "index.json", testIndex), "oci.tar", 1},
		"bad digest":         {tarFile(t, "index.json", `{"manifests":[{"digest":"../x"}]}`), "oci.tar", 1},
		"bad manifest":       {tarFile(t, "index.json", testIndex, "blobs/sha256/MANIFEST", "<html>"), "oci.tar", 1},
		"huge manifest":      {tarFile(t, "index.json", testIndex, "blobs/sha256/MANIFEST", strings.Repeat(" ", maxDocument+1)), "oci.tar", 1},
		"cut":                {whole[:1024+1000], "oci.tar", 1},
		"damaged header":     {append(bytes.Clone(whole[:1024]), bytes.Repeat([]byte("x"), 2048)...), "oci.tar", 1},
	} {
		f := read(t, c.file)
		if f.Format != c.format || len(f.Notes) != c.notes {
			t.Errorf("%s: format %q, notes %q", name, f.Format, f.Notes)
		}
	}
}
