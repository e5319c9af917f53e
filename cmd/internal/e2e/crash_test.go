// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// throttle lets a body pass in small pieces, so that a test can act in the middle.
func throttle(perBlock int) ocitest.Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
				w = &slowWriter{ResponseWriter: w, block: perBlock}
			}
			next.ServeHTTP(w, req)
		})
	}
}

type slowWriter struct {
	http.ResponseWriter
	block int
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		k := min(w.block, len(p))
		pause()
		k, err = w.ResponseWriter.Write(p[:k])
		n, p = n+k, p[k:]
	}
	return n, err
}

// After kill -9 in the middle of a pull nothing wrong is served, and little is
// fetched again.
func TestKillDuringPull(t *testing.T) {
	t.Parallel()
	const size = 96 << 20
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(size)
	reg.PushSIF("demo/big", "1", content, nil)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	reg.Use(throttle(128 << 10))
	m := w.mount()
	cat := exec.Command("cat", m.path("lab/demo/big:1.sif"))
	cat.Stdout = io.Discard
	must(t, cat.Start())
	w.eventually("a third of the image is here", func() bool {
		have := w.status().Cache.Used
		return have > size/3
	})
	m.kill()
	_ = cat.Wait()

	reg.Heal()
	sent := reg.BlobBytes()
	m = w.mount()
	if sum := w.ok("sha256sum", m.path("lab/demo/big:1.sif")); "sha256:"+strings.Fields(sum)[0] != ocitest.Digest(content) {
		t.Errorf("after the restart: %s", sum)
	}
	again := reg.BlobBytes() - size
	t.Logf("%d KiB before kill -9, %d KiB of them fetched again", sent>>10, again>>10)
	if again > 8<<20 {
		t.Errorf("%d bytes were fetched again", again)
	}
}

// After kill -9 in the middle of a push the spool still has the file, sreg
// status says so, and a retry publishes it.
func TestKillDuringPush(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	w := newWorld(t, "lab=oci,url="+reg.URL)
	reached := make(chan struct{}, 100)
	release := make(chan struct{})
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPatch || req.Method == http.MethodPut {
				reached <- struct{}{}
				select {
				case <-release:
				case <-req.Context().Done():
				}
				http.Error(w, "gone", http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, req)
		})
	})
	m := w.mount()
	w.ok("mkdir", m.path("lab/demo"))
	cp := exec.Command("cp", greet, m.path("lab/demo/greet:1.0.sif"))
	must(t, cp.Start())
	<-reached
	m.kill()
	if err := cp.Wait(); err == nil {
		t.Error("cp succeeded although the daemon was killed under it")
	}
	close(release)
	reg.Heal()
	if _, ok := reg.Manifest("demo/greet", "1.0"); ok {
		t.Fatal("published before the kill")
	}

	w.mount()
	uploads := w.status().Uploads
	info, err := os.Stat(greet)
	must(t, err)
	if len(uploads) != 1 || uploads[0].Size != info.Size() || uploads[0].Digest == "" {
		t.Fatalf("sreg status shows %+v; want the whole file in the spool", uploads)
	}
	if text := w.ok("sreg", "status"); !strings.Contains(text, "demo/greet:1.0") {
		t.Errorf("sreg status does not name the pending upload:\n%s", text)
	}
	w.ok("sreg", "uploads", "retry", uploads[0].ID)
	if _, ok := reg.Manifest("demo/greet", "1.0"); !ok {
		t.Error("retried, and the registry has no manifest")
	}
}
