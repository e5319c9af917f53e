// SPDX-License-Identifier: Apache-2.0

package archive_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
)

func sumOf(text []byte, step func() int) string {
	h := archive.NewHash()
	for rest := text; len(rest) > 0; {
		n := min(step(), len(rest))
		h.Write(rest[:n])
		rest = rest[n:]
	}
	return archive.Algorithm + ":" + hex.EncodeToString(h.Sum(nil))
}

func TestHash(t *testing.T) {
	t.Parallel()
	img := small(t, true)
	a := layOut(t, img.Manifest)
	whole := read(t, a, img, 0, -1)
	random := rand.New(rand.NewPCG(3, 4))
	for _, step := range []func() int{
		func() int { return 1 }, func() int { return 512 }, func() int { return 1 << 20 }, func() int { return 1 + random.IntN(900) },
	} {
		if got := sumOf(whole, step); got != a.Digest() {
			t.Errorf("%s, want %s", got, a.Digest())
		}
	}
	if err := backends.CheckDigest(a.Digest()); err != nil {
		t.Error(err)
	}
	h := archive.NewHash()
	h.Write([]byte("other"))
	h.Reset()
	h.Write(whole)
	if got := hex.EncodeToString(h.Sum(nil)); archive.Algorithm+":"+got != a.Digest() {
		t.Errorf("after Reset: %s", got)
	}
}

// Whatever bit is wrong, in a header, the padding, or a layer.
func TestHash_everyByteCounts(t *testing.T) {
	t.Parallel()
	img := small(t, false)
	a := layOut(t, img.Manifest)
	whole := read(t, a, img, 0, -1)
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << (i % 8)
		if sumOf(bad, func() int { return len(bad) }) == a.Digest() {
			t.Fatalf("byte %d of %d does not matter", i, len(whole))
		}
	}
	for _, bad := range [][]byte{whole[:len(whole)-1], append(bytes.Clone(whole), 0), nil, whole[512:]} {
		if sumOf(bad, func() int { return 1000 }) == a.Digest() {
			t.Errorf("%d bytes of %d are as good", len(bad), len(whole))
		}
	}
}

// Nothing in a file makes it panic, or keep more than a manifest.
func FuzzHash(f *testing.F) {
	f.Add([]byte("blobs/sha256/"), []byte("{}"), 7)
	f.Fuzz(func(_ *testing.T, head, rest []byte, step int) {
		h := archive.NewHash()
		text := append(bytes.Clone(head), rest...)
		for len(text) > 0 {
			n := min(max(step, 1), len(text))
			h.Write(text[:n])
			text = text[n:]
		}
		h.Sum(nil)
	})
}

func nothing(string, int64, int64, int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(nil)), nil
}

func FuzzNew(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":3},"layers":[]}`))
	const layer = `{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000001","size":`
	for _, size := range []string{"17592186044416", "17592186044417", "9223372036854775807", "-9223372036854775808", "1e18"} {
		f.Add([]byte(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":3},"layers":[` +
			layer + size + "}]}"))
	}
	f.Fuzz(func(t *testing.T, manifest []byte) {
		a, err := archive.New(manifest)
		if err == nil {
			// To the end, and to the end of all numbers, is the same.
			if body, err := a.Open(1, 1<<63-1, nothing); err == nil {
				body.Close()
			} else {
				t.Errorf("Open of the rest: %v", err)
			}
		}
		if err == nil && (a.Size() < int64(len(manifest)) || a.Size()%512 != 0 && len(manifest) == 0) {
			t.Errorf("size %d", a.Size())
		}
	})
}
