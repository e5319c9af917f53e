// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

func randomBytes(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(b)
	return b
}

// Looking at the tree costs no byte of any image.
func TestLookingDownloadsNothing(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "getfattr")
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(1 << 20)
	for i := range 12 {
		reg.PushSIF(fmt.Sprintf("org/team%d/tool", i%3), fmt.Sprintf("v%d", i), content, nil)
	}
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	listing := w.ok("ls", "-lR", m.path("lab"))
	if got := strings.Count(listing, ".sif"); got != 12 {
		t.Errorf("ls -lR shows %d images, want 12:\n%s", got, listing)
	}
	w.ok("find", m.path("lab"), "-size", "+1k", "-newermt", "2000-01-01")
	w.ok("du", "-sb", m.path("lab"))
	w.ok("stat", m.path("lab/org/team0/tool:v0.sif"))
	attrs := w.ok("getfattr", "--only-values", "-n", "user.sreg", m.path("lab/org/team0/tool:v0.sif"))
	for _, want := range []string{"uri: lab://org/team0/tool:v0\n", "digest: " + ocitest.Digest(content) + "\n", "state: remote\n"} {
		if !strings.Contains(attrs, want) {
			t.Errorf("getfattr lacks %s:\n%s", want, attrs)
		}
	}
	if n := reg.BlobBytes(); n != 0 {
		t.Errorf("%d bytes of blobs were fetched", n)
	}
}

// A small read of a huge image asks for little more than it needs.
func TestSmallReadOfHugeImage(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(500 << 20)
	reg.PushSIF("demo/huge", "1", content, nil)
	var asked atomic.Int64
	reg.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			var from, to int64
			if n, _ := fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-%d", &from, &to); n == 2 {
				asked.Add(to - from + 1)
			} else if strings.Contains(req.URL.Path, "/blobs/") {
				asked.Add(int64(len(content)))
			}
			next.ServeHTTP(w, req)
		})
	})
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	f, err := os.Open(m.path("lab/demo/huge:1.sif"))
	must(t, err)
	defer f.Close()
	buf := make([]byte, 4096)
	const off = 250<<20 + 12345
	_, err = f.ReadAt(buf, off)
	total := asked.Load()
	must(t, err)
	if !bytes.Equal(buf, content[off:off+4096]) {
		t.Error("wrong bytes")
	}
	if total > 4096+2<<20 {
		t.Errorf("%d bytes were asked for to read 4096", total)
	}
}

// However many processes open a cold image, it is sent once.
func TestManyReadersOneDownload(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(64 << 20)
	reg.PushSIF("demo/shared", "1", content, nil)
	reg.PushSIF("demo/shared", "twin", content, nil)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	out := w.ok("sh", "-c", `
		for i in $(seq 16); do
			sha256sum < "$1" &
			sha256sum < "$2" &
			(tail -c 30000000 "$1" | head -c 100 > /dev/null) &
			(dd if="$2" bs=4096 skip=$((i * 900)) count=10 status=none > /dev/null) &
		done
		wait`, "sh", m.path("lab/demo/shared:1.sif"), m.path("lab/demo/shared:twin.sif"))
	want := strings.TrimPrefix(ocitest.Digest(content), "sha256:")
	if got := strings.Count(out, want); got != 32 {
		t.Errorf("%d of 32 readers saw the right bytes:\n%s", got, out)
	}
	if limit := int64(len(content)) / 100 * 102; reg.BlobBytes() > limit {
		t.Errorf("the registry sent %d bytes of %d", reg.BlobBytes(), len(content))
	}
}
