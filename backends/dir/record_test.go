// SPDX-License-Identifier: Apache-2.0

package dir_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/backends/dir/clientdb"
	"github.com/sregfs/sregfs/backends/dir/clientdb/clientdbtest"
)

// withDatabase opens a store with the database of the client.
func withDatabase(t *testing.T, store, database string, write bool) *backends.Client {
	t.Helper()
	b, err := dir.Open(t.Context(), backends.Env{Remote: "local", HTTP: http.DefaultClient, Cache: t.TempDir(),
		Config: map[string]any{"path": store, "database": database, "update_database": write}})
	if err != nil {
		t.Fatal(err)
	}
	c := backends.NewClient("local", b, backends.ClientOptions{MaxElapsed: 100 * time.Millisecond})
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func squashfs(tail string) []byte { return append([]byte("hsqs"), bytes.Repeat([]byte(tail), 100)...) }

func push(t *testing.T, c *backends.Client, ref backends.Ref, content []byte) backends.Image {
	t.Helper()
	sum := sha256.Sum256(content)
	img, err := c.Push(t.Context(), ref, backends.Source{Content: bytes.NewReader(content), Size: int64(len(content)),
		Digest: "sha256:" + hex.EncodeToString(sum[:]), Format: "simg", Replaces: backends.ReplaceAny})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// rowsOf returns what the database says: NAME:TAG of the collection lab, with the base of its file.
func rowsOf(t *testing.T, path string) map[string]string {
	t.Helper()
	db := clientdb.New(path)
	defer db.Close()
	found := map[string]string{}
	for r, err := range db.Collection(t.Context(), "lab") {
		if err != nil {
			t.Fatal(err)
		}
		if r.Image != "" {
			if _, err := os.Stat(r.Image); err != nil {
				t.Errorf("%s:%s: %v", r.Name, r.Tag, err)
			}
		}
		found[r.Name+":"+r.Tag] = filepath.Base(filepath.Dir(r.Image)) + r.URL
	}
	return found
}

// The old client sees what is added, renamed, moved and removed here, if it is to be so.
func TestDatabase_write(t *testing.T) {
	t.Parallel()
	for _, write := range []bool{true, false} {
		root := t.TempDir()
		path := filepath.Join(root, "db", "sregistry.db")
		c := withDatabase(t, filepath.Join(root, "store"), path, write)
		want := func(what string, rows map[string]string) {
			t.Helper()
			if !write {
				if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: a database was made, though it is only read", what)
				}
				return
			}
			if diff := cmp.Diff(rows, rowsOf(t, path)); diff != "" {
				t.Errorf("%s (-want +got): %s", what, diff)
			}
		}
		tool := backends.Ref{Collection: "lab", Name: "tool", Tag: "1"}
		push(t, c, tool, squashfs("a"))
		img := push(t, c, tool, squashfs("b"))
		want("pushed twice", map[string]string{"tool:1": "tool"})
		img, err := c.Move(t.Context(), img, backends.Ref{Collection: "lab", Name: "other", Tag: "2"}, "")
		if err != nil {
			t.Fatal(err)
		}
		want("renamed", map[string]string{"other:2": "other"})
		out := filepath.Join(root, "out")
		if err := os.Mkdir(out, 0o777); err != nil {
			t.Fatal(err)
		}
		if img, err = c.MoveOut(t.Context(), img, filepath.Join(out, "x.sif")); err != nil {
			t.Fatal(err)
		}
		want("moved out", map[string]string{"other:2": "out"})
		if img, err = c.Move(t.Context(), img, tool, ""); err != nil {
			t.Fatal(err)
		}
		want("a record renamed", map[string]string{"tool:1": "out"})
		img = push(t, c, tool, squashfs("c"))
		want("a record replaced", map[string]string{"tool:1": "tool"})
		if err := c.Delete(t.Context(), img); err != nil {
			t.Fatal(err)
		}
		want("deleted", map[string]string{})
		if _, err := c.Stat(t.Context(), tool); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after deleting: %v", err)
		}
		if _, err := os.Stat(filepath.Join(out, "x.sif")); err != nil {
			t.Error(err)
		}
	}
}

// All databases give the same four images, and a second import has nothing to do.
func TestDatabase_versions(t *testing.T) {
	t.Parallel()
	for _, version := range clientdbtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			path, err := clientdbtest.Make(version, root, "", squashfs("x"))
			if err != nil {
				t.Fatal(err)
			}
			store := filepath.Join(root, "store")
			check := func(c *backends.Client) {
				t.Helper()
				var names []string
				for img, err := range c.Search(t.Context(), "") {
					if err != nil {
						t.Fatal(err)
					}
					names = append(names, img.Ref.String())
					if img.Labels["sregistry.client"] != "hub" {
						t.Errorf("%s: labels %v", img.Ref, img.Labels)
					}
					if strings.HasPrefix(img.URL, "http") {
						continue
					}
					f, err := c.OpenFile(t.Context(), img)
					if err != nil {
						t.Errorf("%s: %v", img.Ref, err)
						continue
					}
					f.Close()
				}
				want := []string{"library/ubuntu:latest", "vsoch/by-url:3", "vsoch/hello-world:1.0", "vsoch/moved:v2"}
				if diff := cmp.Diff(want, slices.Sorted(slices.Values(names))); diff != "" {
					t.Errorf("(-want +got): %s", diff)
				}
			}
			c := withDatabase(t, store, path, false)
			check(c)
			for i, want := range []string{"", "", "known"} { // dry, for good, again
				for step, err := range c.Import(t.Context(), i == 0) {
					if err != nil || want != "" && step.What != want || want == "" && step.What == "known" {
						t.Errorf("import %d: %+v, %v", i, step, err)
					}
				}
			}
			check(withDatabase(t, store, "", false))
		})
	}
}

// A server that does not answer is no reason to leave the whole store alone.
func TestDatabase_deadURL(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	path, err := clientdbtest.Make("0.2.39", root, "", squashfs("x"))
	if err != nil {
		t.Fatal(err)
	}
	c := withDatabase(t, filepath.Join(root, "store"), path, false)
	img, err := c.Stat(t.Context(), backends.Ref{Collection: "vsoch", Name: "by-url", Tag: "3"})
	if err != nil || img.Size != -1 || img.Version == "" {
		t.Fatalf("%+v, %v", img, err)
	}
	for range 6 {
		if _, err := c.Open(t.Context(), img, 0, 1); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("opened: %v", err)
		}
		if _, err := c.Stat(t.Context(), backends.Ref{Collection: "vsoch", Name: "moved", Tag: "v2"}); err != nil {
			t.Fatal(err)
		}
	}
}
