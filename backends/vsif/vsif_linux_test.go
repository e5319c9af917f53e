// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// A member is an entry of a tar that a test makes.
type member struct {
	tar.Header
	content string
}

func file(name, content string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: day}, content}
}

func dir(name string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: day}, ""}
}

func symlink(name, to string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, ModTime: day}, ""}
}

func hardlink(name, to string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to, ModTime: day}, ""}
}

var day = time.Unix(1_000_000_000, 0)

// tarOf makes a tar.
func tarOf(tb testing.TB, members ...member) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Size = int64(len(m.content))
		if err := w.WriteHeader(&m.Header); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, m.content); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// entriesOf reads the entries of a tar, and fills those that are sparse.
func entriesOf(tb testing.TB, data []byte) (all []Entry, err error) {
	tb.Helper()
	in := bytes.NewReader(data)
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			tb.Fatal(err)
		}
		e, ok, err := FromHeader(h, in.Size()-int64(in.Len()))
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, e)
		}
	}
}

// build lays out an image of tars, and returns its bytes.
func build(tb testing.TB, configText string, tars ...[]byte) ([]byte, error) {
	tb.Helper()
	bounds := make([]int64, len(tars))
	for i, data := range tars {
		bounds[i] = int64(len(data))
	}
	const manifest = `{"schemaVersion":2}`
	plan, err := NewPlan(int64(len(manifest)), int64(len(configText)), bounds)
	if err != nil {
		return nil, err
	}
	tree := NewTree()
	for _, data := range tars {
		entries, err := entriesOf(tb, data)
		if err == nil {
			err = tree.Add(entries)
		}
		if err != nil {
			return nil, err
		}
	}
	img, err := plan.Build(tree, Source{[]byte(manifest), []byte(configText), bounds, bounds})
	if err != nil {
		return nil, err
	}
	whole := make([]byte, plan.Size)
	for i, data := range tars {
		copy(whole[plan.Layers[i].Offset:], data)
	}
	for _, p := range img.Pieces {
		copy(whole[p.Offset:], p.Text)
	}
	return whole, nil
}

const plainConfig = `{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","A=b"],"Cmd":["sh"]},"rootfs":{"type":"layers"}}`

// unpack writes the partition of an image to a file, and unpacks it.
func unpack(t *testing.T, whole []byte) (root string) {
	t.Helper()
	at := bytes.Index(whole, []byte("hsqs"))
	path := filepath.Join(t.TempDir(), "p.squashfs")
	if err := os.WriteFile(path, whole[at:], 0o600); err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "root")
	out, err := exec.Command("unsquashfs", "-no-progress", "-d", root, path).CombinedOutput()
	if err != nil {
		t.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	return root
}

func TestBuild(t *testing.T) {
	ocitest.Need(t, "unsquashfs")
	whole, err := build(t, plainConfig,
		tarOf(t, dir("etc"), file("etc/passwd", "root"), file("big", strings.Repeat("0123456789abcdef", 20_000)), symlink("lib", "usr/lib"), file("usr/lib/a", "a"), file("gone", "x"), dir("d"), file("d/low", "low")),
		tarOf(t, file("lib/b", "b"), file(".wh.gone", ""), file("d/new", "new"), file("d/.wh..wh..opq", ""), hardlink("link", "usr/lib/a")),
	)
	if err != nil {
		t.Fatal(err)
	}
	root := unpack(t, whole)
	for name, want := range map[string]string{"etc/passwd": "root", "usr/lib/a": "a", "usr/lib/b": "b", "d/new": "new", "link": "a", "big": strings.Repeat("0123456789abcdef", 20_000)} {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for _, name := range []string{"gone", "d/low", ".wh.gone"} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}

// TestGolden pins the bytes of an image. Another sum is another Version.
func TestGolden(t *testing.T) {
	whole, err := build(t, plainConfig, tarOf(t, tortures()["modes"][0]...), tarOf(t, manyFiles()[:500]...))
	if err != nil {
		t.Fatal(err)
	}
	const want = "4b0eeee3ec6ebab8c847828848d7cb5e6ed2abe3ea34ef501a97de4dc5184b8b"
	if got := fmt.Sprintf("%x", sha256.Sum256(whole)); got != want {
		t.Errorf("the sum is %s, want %s", got, want)
	}
}

// TestKernel mounts an image by the kernel, and by squashfuse, and reads all of it.
func TestKernel(t *testing.T) {
	ocitest.Need(t, "unsquashfs", "squashfuse", "losetup")
	whole, err := build(t, plainConfig, tarOf(t, manyFiles()...), tarOf(t, tortures()["sizes"][0]...), tarOf(t, tortures()["modes"][0]...))
	if err != nil {
		t.Fatal(err)
	}
	want := facts(t, unpack(t, whole), map[string]bool{"big": true, "wide": true, "empty": true})
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprint(bytes.Index(whole, []byte("hsqs")))
	for name, args := range map[string][]string{
		"kernel":     {"mount", "-t", "squashfs", "-o", "loop,ro,offset=" + at, path},
		"squashfuse": {"squashfuse", "-o", "offset=" + at, path},
	} {
		t.Run(name, func(t *testing.T) {
			at := t.TempDir()
			if out, err := exec.Command(args[0], append(args[1:], at)...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			defer func() {
				if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
					t.Errorf("umount: %v: %s", err, out)
				}
			}()
			got := facts(t, at, map[string]bool{"big": true, "wide": true, "empty": true})
			for name, fact := range want {
				if got[name] != fact {
					t.Errorf("%s:\n got %s\nwant %s", name, got[name], fact)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d names, want %d", len(got), len(want))
			}
		})
	}
}
