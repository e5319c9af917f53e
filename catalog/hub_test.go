// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/hub"
	"github.com/sregfs/sregfs/backends/hub/hubtest"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// newArchive is a bench with an archive of Singularity Hub as its remote.
func newArchive(t *testing.T, srv *hubtest.Server) *bench {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	backend, err := hub.Open(t.Context(), backends.Env{Remote: "hub", Type: "hub", HTTP: hc, Config: srv.Config()})
	if err != nil {
		t.Fatal(err)
	}
	client := backends.NewClient("hub", backend, backends.ClientOptions{})
	t.Cleanup(func() { client.Close() })
	return newBench(t, newService(), func(b *bench) {
		b.extra = []catalog.Remote{{Name: "hub", Type: "hub", Client: client}}
	})
}

// What the archive of Singularity Hub knows of an image's bytes is an MD5, or a
// SHA-256, of the file: one bit that is not what it was, and nobody gets it.
func TestHub_flippedBit(t *testing.T) {
	t.Parallel()
	kinds := []hubtest.Image{
		{Name: "org/md5", Ext: "simg", Content: tiny(t, "md5")},
		{Name: "org/sha", Ext: "simg", Content: tiny(t, "sha"), SHA256: true},
		{Name: "org/gz", Ext: "img.gz", Content: zipped(t, tiny(t, "gz"))},
	}
	srv := hubtest.Start(t, hubtest.Options{})
	for _, img := range kinds {
		img.Tag, img.Spoilt = "spoilt", true
		srv.Add(img)
	}
	b := newArchive(t, srv)
	for _, img := range kinds {
		to := filepath.Join(t.TempDir(), "image")
		if _, err := b.Pull(t.Context(), "hub://"+img.Name+":spoilt", verbs.PullOptions{To: to}, nil); !errors.Is(err, backends.ErrCorrupt) {
			t.Errorf("Pull of %s with a flipped bit: %v, want ErrCorrupt", img.Name, err)
		}
		if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Pull of %s with a flipped bit left a file: %v", img.Name, err)
		}
		if in, err := b.Inspect(t.Context(), "hub://"+img.Name+":spoilt"); err == nil && in.Record.State != cache.Remote {
			t.Errorf("%s with a flipped bit is kept: %s", img.Name, in.Record.State)
		}
	}
}

// A compressed image is called by the MD5 of what is in it, which is not asked of
// the file.
func TestHub_pull(t *testing.T) {
	t.Parallel()
	content := zipped(t, tiny(t, "gz"))
	srv := hubtest.Start(t, hubtest.Options{}, hubtest.Image{Name: "org/gz", Tag: "1", Ext: "img.gz", Content: content})
	b := newArchive(t, srv)
	to := filepath.Join(t.TempDir(), "image")
	if _, err := b.Pull(t.Context(), "shub://org/gz:1", verbs.PullOptions{To: to}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d other bytes, %v", len(got), err)
	}
}

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
