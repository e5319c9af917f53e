// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
)

// maxAlloc bounds what looking at an image of the fuzz corpus may allocate, in
// bytes in all: pages, texts and unpacked blocks are each bounded.
const maxAlloc = 64 << 20

// FuzzInspect runs everything on damaged images: nothing panics, takes much
// memory, or gives ranges outside of the file. The input overwrites 8 bytes of a
// small image twice.
func FuzzInspect(f *testing.F) {
	var images [][]byte
	for _, codec := range []string{"gzip", "xz", "lz4", "zstd", "plain"} {
		squash := load(f, "small-"+codec+".simg")
		images = append(images, squash, wrapSIF(f, squash))
	}
	for i := range images {
		f.Add(uint8(i), uint32(0), uint64(0), uint32(0), uint64(0))
		f.Add(uint8(i), uint32(88), ^uint64(0), uint32(96), uint64(1<<62))
		f.Add(uint8(i), uint32(40), uint64(1<<40), uint32(64), uint64(1<<63))
	}
	f.Fuzz(func(t *testing.T, image uint8, off1 uint32, v1 uint64, off2 uint32, v2 uint64) {
		b := bytes.Clone(images[int(image)%len(images)])
		for _, c := range []struct {
			off uint32
			v   uint64
		}{{off1, v1}, {off2, v2}} {
			if c.off != 0 {
				binary.LittleEndian.PutUint64(b[int(c.off)%(len(b)-8):], c.v)
			}
		}
		inspectAll(t, b)
	})
}

// FuzzBytes does the same with bytes as they come.
func FuzzBytes(f *testing.F) {
	f.Add([]byte(launchLine))
	f.Add(load(f, "small-lz4.simg"))
	f.Add(wrapSIF(f, load(f, "small-gzip.simg")))
	f.Add(tarFile(f, "blobs/sha256/MANIFEST", testManifest, "blobs/sha256/CONFIG", testConfig, "index.json", testIndex))
	f.Fuzz(inspectAll)
}

func inspectAll(t *testing.T, b []byte) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	size := int64(len(b))
	if _, err := Read(t.Context(), bytes.NewReader(b), size); err != nil {
		t.Errorf("Read: %v, though the reader gave none", err)
	}
	format, err := Complete(bytes.NewReader(b), size)
	if err == nil && format != "sif" && format != "simg" {
		t.Errorf("Complete = %q", format)
	}
	var done int64
	for _, r := range Hot(t.Context(), bytes.NewReader(b), size) {
		if r.Off < done || r.N <= 0 || r.Off+r.N > size {
			t.Errorf("range %+v of %d bytes, after %d", r, size, done)
		}
		done = r.Off + r.N
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > maxAlloc {
		t.Errorf("%d bytes allocated", n)
	}
}

// wrapSIF puts a squashfs into a SIF, with the header of a real one.
func wrapSIF(f *testing.F, squash []byte) []byte {
	b := append(load(f, "greet-signed.sif")[:36864], squash...)
	clear(b[4096+3*sifDescriptorSize:][:sifDescriptorSize])
	binary.LittleEndian.PutUint64(b[4096+2*sifDescriptorSize+25:], uint64(len(squash)))
	return b
}
