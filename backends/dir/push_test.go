// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk/disktest"
)

var ref = backends.Ref{Collection: "c", Name: "i", Tag: "t"}

func source(text string) backends.Source {
	return backends.Source{Content: strings.NewReader(text), Size: int64(len(text)), Digest: "sha256:" + sum([]byte(text)), Format: "sif"}
}

func push(t *testing.T, c *client, ref backends.Ref, src backends.Source) backends.Image {
	t.Helper()
	img, err := c.Push(t.Context(), ref, src)
	if err != nil {
		t.Fatalf("Push(%s): %v", ref, err)
	}
	return img
}

func TestPush_layout(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	img := push(t, c, ref, source("text"))
	path := filepath.Join(root, "c", "i", "t@"+sum([]byte("text"))+".sif")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Fatalf("%v, mode %v: an image can be executed", err, info.Mode())
	}
	if want := "sha256:" + sum([]byte("text")); img.Digest != want {
		t.Errorf("digest %q, want %q", img.Digest, want)
	}
	// The digest is known to others too, and after the facts are lost only that is.
	other := &client{path: root}
	if got, err := other.Stat(t.Context(), ref); err != nil || !cmp.Equal(got, img) {
		t.Errorf("another process sees %+v, %v, want %+v", got, err, img)
	}
	if err := os.RemoveAll(filepath.Join(root, private)); err != nil {
		t.Fatal(err)
	}
	got, err := (&client{path: root}).Stat(t.Context(), ref)
	if err != nil || got.Digest != "" || got.Version != img.Version {
		t.Errorf("without facts: %+v, %v", got, err)
	}
}

// A file that somebody writes to is another version, and its digest is not
// claimed any more.
func TestModifiedInPlace(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	img := push(t, c, ref, source("hsqs"))
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	write(t, root, "c/i/t@"+sum([]byte("hsqs"))+".sif", []byte("HSQS"), time.Now().Add(time.Hour))
	if _, err := io.ReadAll(body); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("a body under way: %v, want ErrChanged", err)
	}
	now, err := c.Stat(t.Context(), ref)
	if err != nil || now.Digest != "" || now.Version == img.Version {
		t.Errorf("Stat = %+v, %v", now, err)
	}
	if _, err := c.Open(t.Context(), img, 0, -1); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Open of the old version: %v, want ErrChanged", err)
	}
	exact := ref
	exact.Version = "sha256:" + sum([]byte("hsqs"))
	if _, err := c.Stat(t.Context(), exact); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of the digest that the name still has: %v, want fs.ErrNotExist", err)
	}
}

func TestPush_path(t *testing.T) {
	t.Parallel()
	for _, give := range []bool{false, true} {
		t.Run(fmt.Sprintf("give=%v", give), func(t *testing.T) {
			t.Parallel()
			c, root := newStore(t)
			src := source("the bytes of a file")
			src.Path, src.Give = filepath.Join(root, ".spool"), give
			write(t, root, ".spool", []byte("the bytes of a file"), time.Time{})
			img := push(t, c, ref, src)
			got, err := os.ReadFile(strings.TrimPrefix(img.URL, "file://"))
			if err != nil || string(got) != "the bytes of a file" {
				t.Errorf("%q, %v", got, err)
			}
			a, errA := os.Stat(src.Path)
			b, errB := os.Stat(strings.TrimPrefix(img.URL, "file://"))
			if errA != nil || errB != nil || os.SameFile(a, b) != give {
				t.Errorf("same file: %v, want %v (%v, %v)", os.SameFile(a, b), give, errA, errB)
			}
			if b.Mode().Perm() != 0o755 {
				t.Errorf("mode %v", b.Mode())
			}
			noLeftovers(t, root)
		})
	}
}

// Of many pushes to one free tag, from several processes' worth of backends,
// one succeeds and the others are told.
func TestPush_one(t *testing.T) {
	t.Parallel()
	_, root := newStore(t)
	var g errgroup.Group
	var mu sync.Mutex
	won := []string{}
	for i := range 12 {
		g.Go(func() error {
			c := &client{path: root}
			text := fmt.Sprintf("racer %d", i)
			_, err := c.Push(t.Context(), ref, source(text))
			if errors.Is(err, fs.ErrExist) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			won = append(won, text)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(won) != 1 {
		t.Fatalf("%d pushes succeeded: %q", len(won), won)
	}
	files, err := os.ReadDir(filepath.Join(root, "c", "i"))
	if err != nil || len(files) != 1 || files[0].Name() != "t@"+sum([]byte(won[0]))+".sif" {
		t.Errorf("%v, %v, want the image of %q alone", files, err, won[0])
	}
	noLeftovers(t, root)
}

// What replaces an image is the tag, though the clock went backwards.
func TestPush_newest(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	write(t, root, "c/i/t@aa.sif", []byte("from the future"), time.Now().Add(240*time.Hour))
	write(t, root, "c/i/t@bb.sif", []byte("from the past"), time.Now().Add(-240*time.Hour))
	src := source("new")
	src.Replaces = backends.ReplaceAny
	img := push(t, c, ref, src)
	if now, err := c.Stat(t.Context(), ref); err != nil || now.Version != img.Version {
		t.Errorf("Stat = %+v, %v, want %+v", now, err, img)
	}
	files, err := os.ReadDir(filepath.Join(root, "c", "i"))
	if err != nil || len(files) != 2 {
		t.Errorf("%v, %v: the replaced version goes, others stay", files, err)
	}
	if err := c.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "c")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("empty folders stay: %v", err)
	}
}

// The disk of a store is full: the push fails with ENOSPC and leaves nothing.
func TestPush_fullDisk(t *testing.T) {
	t.Parallel()
	root := disktest.Small(t, "1m")
	c := &client{path: root}
	old := push(t, c, ref, source("old"))
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	src := source(string(text))
	src.Replaces = backends.ReplaceAny
	_, err := c.Push(t.Context(), ref, src)
	if errno, ok := backends.LocalErrno(err); !ok {
		t.Errorf("%v (%v), want ENOSPC", err, errno)
	}
	if now, err := c.Stat(t.Context(), ref); err != nil || now.Version != old.Version {
		t.Errorf("Stat = %+v, %v, want the old image", now, err)
	}
	noLeftovers(t, root)
}

func TestSweep(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	write(t, root, ".sregfs/tmp/OLD", []byte("x"), time.Now().Add(-2*staleAfter))
	write(t, root, ".sregfs/tmp/FRESH", []byte("x"), time.Time{})
	push(t, c, ref, source("text"))
	left, err := os.ReadDir(filepath.Join(root, private, "tmp"))
	if err != nil || len(left) != 1 || left[0].Name() != "FRESH" {
		t.Errorf("%v, %v: only what is old goes, another process may be writing the rest", left, err)
	}
}

func noLeftovers(t *testing.T, root string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(root, private, "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in the staging directory: %v, %v", left, err)
	}
}

const killedRoot = "SREGFS_TEST_DIR_PUSH"

// TestKill pushes in a child process that is killed at odd moments. Whatever it
// said was stored is there, and whatever is there is whole.
func TestKill(t *testing.T) {
	if root := os.Getenv(killedRoot); root != "" {
		pushForEver(t, root)
	}
	t.Parallel()
	c, root := newStore(t)
	acked := 0
	for round := range 12 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), killedRoot+"="+root)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed after the round's number of lines, plus a bit of luck.
		said := make([]byte, 6*(round+1))
		if _, err := io.ReadFull(out, said); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(round*700)*time.Microsecond, func() { _ = cmd.Process.Kill() })
		rest, _ := io.ReadAll(out)
		_ = cmd.Wait()
		for n := range strings.FieldsSeq(string(append(said, rest...))) {
			if len(n) == 5 {
				acked = max(acked, atoi(t, n))
			}
		}
		checkWhole(t, c, acked)
	}
}

// pushForEver replaces one image again and again and prints what is stored.
func pushForEver(t *testing.T, root string) {
	c := &client{path: root}
	first := 0
	if img, err := c.Stat(t.Context(), ref); err == nil {
		first = int(img.Size) - 50_000
	}
	for n := first + 1; ; n++ {
		src := source(numbered(n))
		src.Replaces = backends.ReplaceAny
		push(t, c, ref, src)
		fmt.Printf("%05d\n", n)
	}
}

// numbered is an image whose size is its number.
func numbered(n int) string { return "hsqs" + strings.Repeat("x", 50_000+n-4) }

func checkWhole(t *testing.T, c *client, acked int) {
	t.Helper()
	img, err := c.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if n := int(img.Size) - 50_000; n < acked {
		t.Errorf("image %d was stored, and the tag means %d", acked, n)
	}
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil || string(text) != numbered(int(img.Size)-50_000) {
		t.Errorf("%d bytes that are not the image, %v", len(text), err)
	}
	if img.Digest != "" && img.Digest != "sha256:"+sum(text) {
		t.Errorf("digest %s of other bytes", img.Digest)
	}
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n := 0
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}
