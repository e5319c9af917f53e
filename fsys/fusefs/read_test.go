// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

func emptyTree() *fsys.FS {
	c, err := catalog.New(catalog.Options{})
	if err != nil {
		panic(err)
	}
	return fsys.New(c, uploads.New(c, nil), fsys.Options{})
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// eachWay runs a test through the kernel's passthrough, where that is possible,
// and without.
func eachWay(t *testing.T, test func(t *testing.T, opts fusefs.Options)) {
	for _, off := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoPassthrough=%v", off), func(t *testing.T) {
			t.Parallel()
			test(t, fusefs.Options{NoPassthrough: off})
		})
	}
}

// A tag that was replaced elsewhere: who opens it gets what it means now, though its
// listing and its facts are fresh, and whether or not some of the old bytes are here.
func TestReplaced(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusPreconditionFailed, http.StatusNotFound} {
		for _, size := range []int{40 << 10, 20 << 20} {
			t.Run(fmt.Sprint(status, " ", size), func(t *testing.T) {
				t.Parallel()
				w := fsystest.New(t, fsystest.Options{Cache: cache.Options{NoBackground: true}})
				old, now := fsystest.Image(size, 1), fsystest.Image(size+5000, 2)
				w.Service.Put("c/a:1", fsystest.Image(size, 3))
				w.Service.Put("c/b:1", old)
				gone := func(rw http.ResponseWriter, r *http.Request) bool {
					match := strings.Trim(r.Header.Get("If-Match"), `"`)
					if r.Method == http.MethodGet && match != "" && match != "sha256:"+sum(w.Service.Get(strings.TrimPrefix(r.URL.Path, "/"))) {
						rw.WriteHeader(status)
						return true
					}
					return false
				}
				w.Service.Fault.Store(&gone)
				dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
				fusetest.MustShell(t, dir, "ls -l web/c; head -c 100 web/c/b:1.sif > /dev/null")
				w.Service.Put("c/a:1", now)
				w.Service.Put("c/b:1", now)
				<-time.After(1100 * time.Millisecond) // what came in within a second is not asked again
				if got := fusetest.MustShell(t, dir, "cat web/c/a:1.sif"); got != string(now) {
					t.Errorf("a replaced image: %d bytes, want %d", len(got), len(now))
				}
				want := now
				if size <= 16<<20 {
					want = old // all of it was here
				}
				if got := fusetest.MustShell(t, dir, "cat web/c/b:1.sif"); got != string(want) {
					t.Errorf("a replaced image that was read before: %d bytes, want %d", len(got), len(want))
				}
			})
		}
	}
}

// Looking around costs no byte of any image, and a plain listing no question
// about any.
func TestBrowse(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	for i := range 40 {
		w.Service.Put(fmt.Sprintf("vsoch/hello:%d", i), fsystest.Image(9000+i, uint64(i)))
	}
	w.Service.Put("vsoch/deep/er/img:1", fsystest.Image(8192, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})

	if got, want := fusetest.MustShell(t, dir, "ls"), "local\nweb\n"; got != want {
		t.Errorf("ls = %q, want %q", got, want)
	}
	out := fusetest.MustShell(t, dir, "ls web/vsoch && find . -name 'hello:*' | wc -l")
	if !strings.Contains(out, "hello:39.sif") || !strings.HasSuffix(out, "\n40\n") {
		t.Errorf("ls and find:\n%s", out)
	}
	if n := w.Service.Stats.Load(); n != 0 {
		t.Errorf("ls and find asked about %d images", n)
	}
	out = fusetest.MustShell(t, dir, "ls -lR; du -a; stat 'web/vsoch/hello:7.sif'")
	if !strings.Contains(out, "-r-xr-xr-x 1") || !strings.Contains(out, " 41807 ") || !strings.Contains(out, "Size: 41775") {
		t.Errorf("ls -lR, du, stat:\n%s", out)
	}
	fusetest.NeedTool(t, "getfattr")
	out = fusetest.MustShell(t, dir, "getfattr --only-values -n user.sreg web/vsoch/hello:7.sif web web/vsoch")
	for _, want := range []string{
		"uri: web://vsoch/hello:7\n", "state: remote\n", "remote: web\n", "label.maintainer: vsoch\n", "digest: sha256:", "uri: web://vsoch\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("getfattr lacks %s:\n%s", want, out)
		}
	}
	// Whoever copies with attributes would carry them elsewhere, and try to remove them here.
	if out = fusetest.MustShell(t, dir, "getfattr -d -m - web/vsoch/hello:7.sif web web/vsoch"); out != "" {
		t.Errorf("attributes are listed:\n%s", out)
	}
	if n := w.Service.Bytes.Load(); n != 0 {
		t.Errorf("looking around fetched %d bytes", n)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	w.Service.Put("vsoch/hello:latest", fsystest.Image(5000, 1))
	w.Service.Put("vsoch/hello:1.0", fsystest.Image(6000, 1))
	w.Service.Put("vsoch/hello:1.0/sub/x:1", fsystest.Image(7000, 1))
	long := strings.Repeat("long", 80)
	w.Service.Put("vsoch/"+long+":1", fsystest.Image(8000, 1))
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	digest := "sha256:" + sum(w.Service.Get("vsoch/hello:1.0"))
	out := fusetest.MustShell(t, filepath.Join(dir, "web/vsoch"), `
		stat -c %i hello:latest.sif hello:latest hello hello.simg hello.sif hello:latest.simg | sort -u | wc -l
		stat -c %s hello:1.0 'hello:1.0@`+digest+`.sif' 'hello:1.0@`+digest+`'
		stat -c %s longlong*~*.sif
		stat -c %i hello:1.0.sif hello:latest.sif | sort -u | wc -l`)
	if want := "1\n38768\n38768\n38768\n40768\n2\n"; out != want {
		t.Errorf("stat = %q, want %q", out, want)
	}
	for _, name := range []string{"none", "hello:2", "hello:1.0@sha256:00.sif", ".git", "none/x", strings.Repeat("x", 256), "a:b:c.sif"} {
		fusetest.MustFail(t, filepath.Join(dir, "web/vsoch"), "stat '"+name+"'")
	}
	fusetest.MustShell(t, dir, `test -x web/vsoch/hello:1.0.sif -a ! -w web -o "$(id -u)" = 0`)
}

// A big directory comes whole, in pieces, from any place.
func TestReaddir_big(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	want := map[string]bool{}
	for i := range 3000 {
		w.Service.Put(fmt.Sprintf("big/image-with-a-name:%d", i), nil)
		want[fmt.Sprintf("image-with-a-name:%d.sif", i)] = true
	}
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	f, err := os.Open(filepath.Join(dir, "web/big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 {
		got := map[string]bool{}
		for {
			names, err := f.Readdirnames(700)
			for _, name := range names {
				got[name] = true
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("readdir: -want +got\n%s", diff)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, opts fusefs.Options) {
		w := fsystest.New(t, fsystest.Options{})
		content := fsystest.Image(5<<20+123, 7)
		w.Service.Put("vsoch/hello:1", content)
		dir, m := fusetest.Mount(t, w.FS, opts)
		plain := filepath.Join(t.TempDir(), "plain")
		if err := os.WriteFile(plain, content, 0o600); err != nil {
			t.Fatal(err)
		}
		image := filepath.Join(dir, "web/vsoch/hello:1.sif")

		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				if out, ok := fusetest.Shell(t, dir, "cmp '"+image+"' '"+plain+"'"); !ok {
					t.Error(out)
				}
			})
		}
		all.Wait()
		if got, most := w.Service.Bytes.Load(), int64(len(content))*102/100; got > most {
			t.Errorf("16 readers fetched %d bytes of an image of %d", got, len(content))
		}
		// Whole by now: the next openings go the short way, where there is one.
		if err := wait(t, w, "web://vsoch/hello:1"); err != nil {
			t.Fatal(err)
		}
		fusetest.MustShell(t, dir, fmt.Sprintf("cmp %[1]q %[2]q; head -c 100 %[1]q; tail -c 100 %[1]q >&2", image, plain))
		for _, cmd := range [][]string{{image, plain}, {image, plain}} {
			if out, err := child(t, "mmap", cmd...).CombinedOutput(); err != nil {
				t.Errorf("mmap: %v: %s", err, out)
			}
		}
		out := fusetest.MustShell(t, dir, "getfattr --absolute-names --only-values -n user.sreg.state "+image)
		if out != string(cache.Cached) {
			t.Errorf("state = %q, want %q", out, cache.Cached)
		}
		status := m.Status()
		if pass := status["passthrough"] == "on"; pass == opts.NoPassthrough && os.Geteuid() == 0 {
			t.Errorf("passthrough is %q", status["passthrough"])
		} else if used := status["opens_passthrough"] != "0"; used != pass {
			t.Errorf("passthrough is %v, openings: %v", pass, status)
		}
		if got := status["read_ahead"]; got != "4096 KiB" && os.Geteuid() == 0 {
			t.Errorf("read_ahead is %q", got)
		}
	})
}

// wait makes an image whole, as sreg pull does.
func wait(t *testing.T, w *fsystest.World, uri string) error {
	_, err := w.Verbs().Pull(t.Context(), uri, verbs.PullOptions{}, nil)
	return err
}

// Handles from before and after an image became whole live side by side, in
// whatever order they are closed, and all read right.
func TestPartialToComplete(t *testing.T) {
	t.Parallel()
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 2, 0, 3}, {2, 0, 3, 1}, {0, 2, 1, 3}, {1, 3, 0, 2}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{Cache: cache.Options{NoBackground: true, StrictSize: -1}})
			content := fsystest.Image(12<<20, 3)
			w.Service.Put("c/i:1", content)
			dir, m := fusetest.Mount(t, w.FS, fusefs.Options{})
			path := filepath.Join(dir, "web/c/i:1.sif")
			var files [4]*os.File
			check := func(i int) {
				t.Helper()
				for _, off := range []int64{0, 5<<20 + 17, int64(len(content)) - 4096} {
					got := make([]byte, 4096)
					if _, err := files[i].ReadAt(got, off); err != nil || !bytes.Equal(got, content[off:off+4096]) {
						t.Fatalf("handle %d at %d: %v", i, off, err)
					}
				}
			}
			open := func(i int) {
				t.Helper()
				f, err := os.Open(path)
				if err != nil {
					t.Fatalf("opening handle %d: %v", i, err)
				}
				files[i] = f
				t.Cleanup(func() { f.Close() })
			}
			open(0)
			open(1)
			check(0)
			ino := inodeOf(t, files[0])
			if err := wait(t, w, "web://c/i:1"); err != nil {
				t.Fatal(err)
			}
			open(2)
			open(3)
			for i := range files {
				check(i)
				if got := inodeOf(t, files[i]); got != ino {
					t.Errorf("handle %d is of inode %d, want %d", i, got, ino)
				}
			}
			if got := m.Generation(ino); got != 1 {
				t.Errorf("generation %d after the image became whole, want the same inode: %v", got, m.Status())
			}
			for n, i := range order {
				files[i].Close()
				for _, j := range order[n+1:] {
					check(j)
				}
				open(i) // and once more: any mode can follow any other
				check(i)
				files[i].Close()
			}
			if m.Status()["passthrough"] == "on" {
				switched(t, m, path)
			}
		})
	}
}

// Who has an image open whose download was found wrong keeps nobody else from the
// next one, whatever the kernel forgets meanwhile.
func TestFoundWrong_stillOpen(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{Cache: cache.Options{NoBackground: true, StrictSize: -1}})
	content := fsystest.Image(12<<20, 3)
	w.Service.Put("c/i:1", content)
	dir, m := fusetest.Mount(t, w.FS, fusefs.Options{})
	path := filepath.Join(dir, "web/c/i:1.sif")
	lie := func(rw http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || r.URL.Query().Has("list") {
			return false
		}
		wrong := bytes.Clone(content)
		wrong[9<<20] ^= 1
		rw.Header().Set("ETag", `"sha256:`+sum(content)+`"`)
		http.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(wrong))
		return true
	}
	w.Service.Fault.Store(&lie)
	held, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.ReadAt(make([]byte, 10), 5<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, held); !errors.Is(err, syscall.EIO) {
		t.Fatalf("reading wrong bytes: %v", err)
	}
	w.Service.Fault.Store(nil)
	read := func(when string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%s: %v", when, err)
		}
	}
	read("the next download")
	m.Invalidate("i:1.sif", "web", "c")
	for m.Knows("i:1.sif", "web", "c") {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		m.Invalidate("i:1.sif", "web", "c")
	}
	read("after the kernel forgot it")
}

// switched waits until an opening of a whole image is by passthrough: the one that
// comes while the last release is not over is not.
func switched(t *testing.T, m *fusefs.Mounted, path string) {
	t.Helper()
	for was := m.Status()["opens_passthrough"]; m.Status()["opens_passthrough"] == was; {
		if err := t.Context().Err(); err != nil {
			t.Fatalf("never switched to passthrough: %v", m.Status())
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func inodeOf(t *testing.T, f *os.File) uint64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// A tag that moves leads to another file; who has the old one open keeps it.
func TestMovedTag(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *testing.T, opts fusefs.Options) {
		w := fsystest.New(t, fsystest.Options{})
		v1, v2 := fsystest.Image(300000, 1), fsystest.Image(200000, 2)
		w.Service.Put("c/i:1", v1)
		dir, _ := fusetest.Mount(t, w.FS, opts)
		path := filepath.Join(dir, "web/c/i:1.sif")
		old, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer old.Close()
		if err := wait(t, w, "web://c/i:1"); err != nil {
			t.Fatal(err)
		}
		w.Service.Put("c/i:1", v2)
		w.Catalog.Expire()
		if err := w.Catalog.Refresh(t.Context(), "web", "c"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Catalog.Lookup(t.Context(), "web", backends.Ref{Collection: "c", Name: "i", Tag: "1"}); err != nil {
			t.Fatal(err)
		}
		// The kernel is told by another goroutine: ask until it was.
		for {
			now, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if sum(now) == sum(v2) {
				break
			}
			if sum(now) != sum(v1) {
				t.Fatal("a mixture of two versions")
			}
			if t.Context().Err() != nil {
				t.Fatal("the new version is never seen")
			}
		}
		got, err := io.ReadAll(old)
		if err != nil || !bytes.Equal(got, v1) {
			t.Errorf("the open file changed: %d bytes, %v", len(got), err)
		}
	})
}

func TestSquashfuse(t *testing.T) {
	t.Parallel()
	fusetest.NeedTool(t, "squashfuse")
	eachWay(t, func(t *testing.T, opts fusefs.Options) {
		greet, err := os.ReadFile("../../catalog/inspect/testdata/greet.simg")
		if err != nil {
			t.Fatal(err)
		}
		w := fsystest.New(t, fsystest.Options{})
		w.Service.Put("c/greet:1", greet)
		dir, _ := fusetest.Mount(t, w.FS, opts)
		at := t.TempDir()
		// In the foreground: who runs it waits until it has let go of the image.
		out, ok := fusetest.Shell(t, at, fmt.Sprintf(`mkdir m; exec 3<%q; squashfuse -f /proc/self/fd/3 m & p=$!
			until mountpoint -q m || ! kill -0 $p; do :; done
			cat m/.singularity.d/runscript; fusermount3 -u m; wait $p`,
			filepath.Join(dir, "web/c/greet:1.sif")))
		if !ok || !strings.Contains(out, "#!/bin/sh") {
			t.Errorf("squashfuse of an image in the mount: %v\n%s", ok, out)
		}
	})
}

func TestOpenWait(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{FS: fsys.Options{OpenWait: true}})
	w.Service.Put("c/i:1", fsystest.Image(3<<20, 1))
	dir, m := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, dir, "exec 3<web/c/i:1.sif")
	if got := w.Service.Bytes.Load(); got < 3<<20 {
		t.Errorf("after open %d bytes are here", got)
	}
	if m.Status()["passthrough"] == "on" && m.Status()["opens_passthrough"] != "1" {
		t.Errorf("openings: %v", m.Status())
	}
}

// A refused file is one line in the log, however many requests the kernel makes.
func TestRead_refusedOnce(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{MaxElapsed: time.Second})
	w.Service.Put("c/i:1", fsystest.Image(4<<20, 1))
	var log lines
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	fusetest.MustShell(t, dir, "stat web/c/i:1.sif")
	w.Service.Fail(http.MethodGet, http.StatusForbidden)
	const twice = `exec 3<web/c/i:1.sif; dd bs=128k count=20 <&3 >/dev/null; dd bs=128k count=20 <&3 >/dev/null`
	fusetest.MustFail(t, dir, twice)
	getfattr := "getfattr --absolute-names --only-values -n user.sreg.error web/c/i:1.sif"
	if out := fusetest.MustShell(t, dir, getfattr); !strings.Contains(out, "403") && !strings.Contains(out, "permission") {
		t.Errorf("user.sreg.error = %q", out)
	}
	if n := strings.Count(log.String(), "op=read"); n != 1 {
		t.Errorf("said %d times, want once:\n%s", n, log.String())
	}
}
