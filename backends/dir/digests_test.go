// SPDX-License-Identifier: Apache-2.0

//go:build linux

package dir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// forge writes an image, and beside it the claim that it is another one.
func forge(t *testing.T, root, name, content, digest string) {
	t.Helper()
	write(t, root, name, []byte(content), time.Now().Add(-time.Hour))
	path := filepath.Join(root, name)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	f := fact{file: filepath.Base(name), digest: digest, size: info.Size(), modTime: info.ModTime().UnixNano(), inode: inode(info)}
	write(t, root, factsPath(filepath.Dir(name)), []byte(f.line()+"\n"), time.Time{})
}

// What is asked for by its digest is that, whoever claims it of other bytes: in
// the file's name, or beside it.
func TestDigest_forged(t *testing.T) {
	t.Parallel()
	good, evil := "hsqs good", "hsqs evil"
	digest := "sha256:" + sum([]byte(good))
	for name, expose := range map[string]func(facts string) error{
		"writable by others": func(facts string) error { return os.Chmod(facts, 0o664) },
		"another user's":     func(facts string) error { return os.Lchown(facts, 4242, -1) },
		"in the name only":   os.Remove,
		"our own":            func(facts string) error { return os.Chmod(facts, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, root := newStore(t)
			forge(t, root, "c/i/t@"+sum([]byte(good))+".sif", evil, digest)
			if err := expose(filepath.Join(root, factsPath("c/i"))); errors.Is(err, fs.ErrPermission) {
				t.Skip("only root can give a file away")
			} else if err != nil {
				t.Fatal(err)
			}
			for _, version := range []string{digest, strings.TrimPrefix(digest, "sha256:")} {
				r := ref
				r.Version = version
				if img, err := c.Stat(t.Context(), r); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("Stat(%s) = %+v, %v", r, img, err)
				}
			}
			if img, err := c.Stat(t.Context(), ref); err != nil || img.Digest == digest && name != "our own" {
				t.Errorf("the digest is told: %+v, %v", img, err)
			}
		})
	}
}

// An image that nobody vouches for is found by its digest, is read once for that,
// and the next process knows.
func TestDigest_hashed(t *testing.T) {
	t.Parallel()
	_, root := newStore(t)
	const content = "hsqs content"
	digest := "sha256:" + sum([]byte(content))
	path := filepath.Join(root, "c/i/t.sif")
	write(t, root, "c/i/t.sif", []byte(content), time.Time{})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	// The time of change is as it is: the clock of the test is later.
	old := fileStateOf(info)
	kept := filepath.Join(t.TempDir(), "remotes", digestsFile)
	exact := ref
	exact.Version = digest

	c := &client{path: root}
	c.digests.path = kept
	if img, err := c.Stat(t.Context(), exact); err != nil || img.Version != versionOf(info) {
		t.Fatalf("Stat(%s) = %+v, %v", exact, img, err)
	}
	c.digests.add(old, time.Now().Add(time.Minute), digest)
	for _, again := range []*client{{path: root}, {path: root}} {
		again.digests.path = kept
		if got := again.digests.of(old); got != digest {
			t.Errorf("the next process knows %q", got)
		}
		if img, err := again.Stat(t.Context(), ref); err != nil || img.Digest != digest {
			t.Errorf("Stat = %+v, %v", img, err)
		}
	}
	// Another content with the same size and time has another time of change.
	if err := errors.Join(os.WriteFile(path, []byte("hsqs CONTENT"), 0o755), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
	other := &client{path: root}
	other.digests.path = kept
	if img, err := other.Stat(t.Context(), exact); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("other bytes by that digest: %+v, %v", img, err)
	}
	if mode := fileMode(t, kept); mode != 0o600 {
		t.Errorf("mode %v of what is kept", mode)
	}
	// What others can write to is not believed.
	if err := os.Chmod(kept, 0o666); err != nil {
		t.Fatal(err)
	}
	exposed := &client{path: root}
	exposed.digests.path = kept
	if got := exposed.digests.of(old); got != "" {
		t.Errorf("believed a file that others can write to: %s", got)
	}
}

func fileMode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// A question that has less time than the reading takes is not in vain: the next
// one goes on.
func TestDigest_goesOn(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	content := "hsqs" + strings.Repeat("0123456789abcdef", 1<<17)
	write(t, root, "c/i/t.sif", []byte(content), time.Time{})
	info, err := os.Stat(filepath.Join(root, "c/i/t.sif"))
	if err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(filepath.Join(root, "c/i/t.sif"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c.digests.of(fileStateOf(info))
	h := c.digests.begin(fileStateOf(info))
	h.sum.Write([]byte(content[:1<<20]))
	h.off = 1 << 20
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r := ref
	r.Version = "sha256:" + sum([]byte(content))
	if _, err := c.Stat(over, r); !errors.Is(err, context.Canceled) {
		t.Fatalf("Stat without time: %v", err)
	}
	if h.off != 1<<20 {
		t.Errorf("begun anew: %d", h.off)
	}
	if _, err := c.Stat(t.Context(), r); err != nil {
		t.Errorf("Stat(%s): %v", r, err)
	}
	if h.off != int64(len(content)) {
		t.Errorf("the reading that was begun is at %d of %d", h.off, len(content))
	}
}

func FuzzDigests(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0", 64) + " 1 2 3 4 5\n")
	f.Add("sha256: 1\n\x00")
	f.Fuzz(func(t *testing.T, text string) {
		d := digests{path: filepath.Join(t.TempDir(), "d")}
		if err := os.WriteFile(d.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d.of(fileState{})
		for _, digest := range d.known {
			if backends.CheckDigest(digest) != nil {
				t.Errorf("%q", digest)
			}
		}
	})
}
