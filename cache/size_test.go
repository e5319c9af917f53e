// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
)

// An image that is said to be empty, under the digest of something that is not, is
// no empty file.
func TestSize_zero(t *testing.T) {
	t.Parallel()
	for _, verify := range []Verification{Lazy, Strict} {
		r := newRegistry(t)
		c := openCache(t, t.TempDir(), Options{Verify: verify})
		client, img := r.client(t), r.image("a", randomBytes(1, mib))
		img.Size = 0
		for range 2 {
			if _, err := c.Blob(t.Context(), client, img); !errors.Is(err, backends.ErrCorrupt) {
				t.Errorf("%s: Blob of no bytes with a digest = %v, want ErrCorrupt", verify, err)
			}
		}
		if key := KeyOf("lab", img); c.Info(key).State != Remote {
			t.Errorf("%s: %+v", verify, c.Info(key))
		}
	}
}

// zeros serves an image of any size that is all zeros.
func zeros(t *testing.T, size int64) *backends.Client {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		from, to := parseRange(req.Header.Get("Range"), size)
		w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
		w.WriteHeader(http.StatusPartialContent)
		buf := make([]byte, 64<<10)
		for from < to {
			n, err := w.Write(buf[:min(int64(len(buf)), to-from)])
			if err != nil {
				return
			}
			from += int64(n)
		}
	}))
	tr := &http.Transport{}
	t.Cleanup(s.Close)
	t.Cleanup(tr.CloseIdleConnections)
	return backends.NewClient("lab", &web{url: s.URL, http: &http.Client{Transport: tr}}, backends.ClientOptions{})
}

// What an image costs does not depend on how large somebody says it is. Not
// parallel: it looks at the memory of the process.
func TestSize_huge(t *testing.T) {
	const size = 1 << 40
	client := zeros(t, size)
	dir := t.TempDir()
	img := backends.Image{Ref: backends.Ref{Collection: "c", Name: "a", Tag: "1"}, Size: size, Digest: sha256Of(nil), Version: "1"}
	c := openCache(t, dir, Options{NoBackground: true})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b := openBlob(t, c, client, img)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("opening an image of 1 TiB takes %d bytes of memory", grown)
	}
	p := make([]byte, 100)
	for _, off := range []int64{0, size / 2, size - 100} {
		if _, err := b.ReadAt(p, off); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt(%d): %v", off, err)
		}
	}
	mustDo(t, c.Close())
	c = openCache(t, dir, Options{NoBackground: true})
	if have := c.InfoOf(client, img).Have; have < 3*chunks.Size || have > 32*mib {
		t.Errorf("%d bytes are here after a restart", have)
	}
	for _, img.Size = range []int64{backends.MaxSize + 1, 1 << 60, math.MaxInt64} {
		if _, err := c.Blob(t.Context(), client, img); !errors.Is(err, backends.ErrBadAnswer) {
			t.Errorf("Blob of %d bytes = %v, want ErrBadAnswer", img.Size, err)
		}
	}
	img.Size = backends.MaxSize // more than some disks take: that is the image's error
	if b, err := c.Blob(t.Context(), client, img); err == nil {
		b.Close()
	}
}
