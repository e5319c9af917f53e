// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// textOf returns n bytes that compress to about half.
func textOf(seed uint64, n int) string {
	r, b := rand.New(rand.NewPCG(seed, 1)), make([]byte, n)
	for i := range b {
		b[i] = "abcdefghijklmnop"[r.IntN(16)]
	}
	return string(b)
}

// bigImage returns a container image of three layers, and the files that it comes to.
func bigImage(t *testing.T) (img ocitest.Image, files map[string]string, compressed int64) {
	t.Helper()
	shell, err := os.ReadFile("/bin/busybox")
	must(t, err)
	base := map[string]string{"bin/busybox": string(shell), "gone": "gone", "etc/motd": "old"}
	for i := range 40 {
		base[fmt.Sprintf("lib/f%d", i)] = textOf(uint64(i), 1+i*i*400)
	}
	middle := map[string]string{"opt/data": textOf(100, 9<<20), ".wh.gone": "", "etc/motd": "new"}
	top := map[string]string{"opt/more": textOf(101, 6<<20)}
	img = ocitest.MakeImage(t, true, map[string]any{"Cmd": []string{"/bin/busybox"}}, base, middle, top)
	for _, b := range img.Blobs {
		compressed += int64(len(b))
	}
	files = maps.Clone(base)
	maps.Copy(files, middle)
	maps.Copy(files, top)
	delete(files, "gone")
	delete(files, ".wh.gone")
	return img, files, compressed
}

// The file of a container image is mounted by the kernel and by squashfuse while its layers
// come in, is as the layers say, and starts a program.
func TestContainerImage(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "squashfuse", "losetup", "busybox")
	reg := ocitest.Start(t, ocitest.Options{})
	img, files, compressed := bigImage(t)
	reg.PushImage("demo/big", "1", img)
	for _, how := range []string{"kernel", "squashfuse"} {
		w := newWorld(t, "lab=oci,url="+reg.URL)
		m := w.mount()
		path := m.path("lab/demo/big:1.sif")
		info, err := os.Stat(path)
		must(t, err)
		reg.Forget()
		reg.Use(throttle(128 << 10))
		at := partitionOf(t, path)
		root := t.TempDir()
		words := []string{"squashfuse", "-o", "offset=" + at, path, root}
		if how == "kernel" {
			words = []string{"mount", "-t", "squashfs", "-o", "loop,ro,offset=" + at, path, root}
		}
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", how, err, out)
		}
		if out, err := exec.Command("chroot", root, "/bin/busybox", "echo", "it runs").Output(); err != nil || string(out) != "it runs\n" {
			t.Errorf("%s: %q, %v", how, out, err)
		}
		for name, want := range files {
			if got, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(got) != want {
				t.Errorf("%s: %s: %d bytes, %v", how, name, len(got), err)
			}
		}
		if _, err := os.Lstat(filepath.Join(root, "gone")); err == nil {
			t.Errorf("%s: what was removed is there", how)
		}
		if out, err := exec.Command("umount", root).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", how, err, out)
		}
		w.ok("sreg", "pull", "lab://demo/big:1")
		if again, err := os.Stat(path); err != nil || again.Size() != info.Size() {
			t.Errorf("the size was %d and is %v, %v", info.Size(), again, err)
		}
		if got := reg.BlobBytes(); got > compressed*102/100 {
			t.Errorf("%s: the registry sent %d bytes of %d", how, got, compressed)
		}
		w.ok("sreg", "cache", "verify", "lab://demo/big:1")
		m.stop()
		reg.Heal()
	}
}

// partitionOf returns where the file system begins.
func partitionOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	head := make([]byte, 256<<10)
	_, err = io.ReadFull(f, head)
	must(t, err)
	return fmt.Sprint(bytes.Index(head, []byte("hsqs")))
}

// However often the daemon is killed while the layers come in: the file gets the same bytes,
// and little of what had come is asked for again.
func TestContainerImage_kills(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "busybox")
	reg := ocitest.Start(t, ocitest.Options{})
	img, _, compressed := bigImage(t)
	reg.PushImage("demo/big", "1", img)
	first := newWorld(t, "lab=oci,url="+reg.URL)
	want := strings.Fields(first.ok("sha256sum", first.mount().path("lab/demo/big:1.sif")))[0]

	reg.Forget()
	reg.Use(throttle(16 << 10))
	w := newWorld(t, "lab=oci,url="+reg.URL)
	times := max(kills(t), 20)
	for range times {
		m := w.mount()
		cat := exec.Command("cat", m.path("lab/demo/big:1.sif"))
		must(t, cat.Start())
		<-time.After(rand.N(500 * time.Millisecond))
		m.kill()
		_ = cat.Wait()
	}
	reg.Heal()
	if got := strings.Fields(w.ok("sha256sum", w.mount().path("lab/demo/big:1.sif")))[0]; got != want {
		t.Errorf("after %d kills the file is another one", times)
	}
	// Of each layer what lies between two points, and as much that was read ahead.
	again := reg.BlobBytes() - compressed
	t.Logf("%d kills made %d KiB come again, of %d", times, again>>10, compressed>>10)
	if again > int64(times)*3*6<<20 {
		t.Errorf("the registry sent %d bytes of %d", reg.BlobBytes(), compressed)
	}
}

// A registry that is away while the layers come in makes a reader wait, and no more.
func TestContainerImage_away(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "busybox")
	reg := ocitest.Start(t, ocitest.Options{})
	img, _, compressed := bigImage(t)
	reg.PushImage("demo/big", "1", img)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	var refused atomic.Int64
	var until atomic.Pointer[time.Time]
	slow := throttle(64 << 10)
	reg.Use(func(next http.Handler) http.Handler {
		next = slow(next)
		return http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			if end := until.Load(); end != nil && time.Now().Before(*end) {
				refused.Add(1)
				rw.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			if until.Load() == nil && reg.BlobBytes() > compressed/2 {
				end := time.Now().Add(3 * time.Second)
				until.Store(&end)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(rw, req)
		})
	})
	if at := partitionOf(t, m.path("lab/demo/big:1.sif")); at == "-1" {
		t.Error("the head is none")
	}
	w.ok("sreg", "pull", "lab://demo/big:1")
	w.ok("sreg", "cache", "verify", "lab://demo/big:1")
	if refused.Load() == 0 {
		t.Error("nobody asked while it was away")
	}
}
