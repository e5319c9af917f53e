// SPDX-License-Identifier: Apache-2.0

package chunks

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"testing"
)

func FuzzDecodeMap(f *testing.F) {
	m := &Map{File: File{Name: "sha256:ab", Digest: "sha256:ab", Size: 3*Size + 1}, Have: NewSet(4),
		Hashed: Size, HashState: []byte("state"), Verified: 12345}
	m.Have.Add(2)
	f.Add(m.encode())
	f.Add([]byte(mapMagic))
	f.Add(append(m.encode(), 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(mapMagic) + 4; len(b) >= n { // a right checksum, or nothing else is ever looked at
			b = bytes.Clone(b)
			binary.LittleEndian.PutUint32(b[len(mapMagic):], crc32.Checksum(b[n:], castagnoli))
		}
		m, err := decode(b)
		if err != nil {
			return
		}
		if n := Count(m.Size); m.Have.Len() > n || m.Have.Bytes(m.Size) > m.Size || m.Hashed > m.Size {
			t.Errorf("%d chunks of %d, %d bytes hashed of %d", m.Have.Len(), n, m.Hashed, m.Size)
		}
		again, err := decode(m.encode())
		if err != nil || !bytes.Equal(again.encode(), m.encode()) {
			t.Errorf("round trip: %v", err)
		}
	})
}

func TestChunkMap(t *testing.T) {
	t.Parallel()
	m := &Map{File: File{Name: "version:ab", Digest: "md5:0", Size: 100*Size + 1}, Have: NewSet(101), Hashed: 7, HashState: []byte{1, 2}}
	m.Have.Add(100)
	good := m.encode()
	got, err := decode(good)
	if err != nil || got.File != m.File || got.Hashed != 7 ||
		!bytes.Equal(got.HashState, m.HashState) || !got.Have.Has(100) || got.Have.Len() != 1 {
		t.Errorf("decode = %+v, %v", got, err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := decode(bad); err == nil {
			t.Errorf("a map with byte %d changed was accepted", i)
		}
		if _, err := decode(good[:i]); err == nil {
			t.Errorf("a map cut to %d bytes was accepted", i)
		}
	}
}

// A list of another boot, or about something else, is not believed.
func TestRecentOfAnotherBoot(t *testing.T) {
	t.Parallel()
	const size = 200 * Size
	path := t.TempDir() + "/x.recent"
	blob := File{Name: "sha256:ab", Digest: "sha256:ab", Size: size}
	read := func(boot Boot, of File) (Set, bool) {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return ReadRecent(f, boot, of)
	}
	have := NewSet(Count(size))
	have.Add(3)
	r := StartRecent(path, "boot", blob, have)
	if r == nil {
		t.Fatal("StartRecent = nil")
	}
	defer r.Close()
	have.Add(130)
	r.Note(130, have)
	got, ok := read("boot", blob)
	if !ok || got.Len() != 2 || !got.Has(3) || !got.Has(130) {
		t.Fatalf("ReadRecent = %v, %v; want chunks 3 and 130", got, ok)
	}
	for _, tt := range []struct {
		boot Boot
		of   File
	}{
		{"next", blob},
		{"", blob},
		{"boot", File{"sha256:cd", "sha256:ab", size}},
		{"boot", File{"sha256:ab", "md5:cd", size}},
		{"boot", File{"sha256:ab", "sha256:ab", size + 1}},
	} {
		if _, ok := read(tt.boot, tt.of); ok {
			t.Errorf("ReadRecent(%+v) believes a list that is about something else", tt)
		}
	}
	have.Remove(3)
	if err := r.Replace(have); err != nil {
		t.Fatal(err)
	}
	if got, ok := read("boot", blob); !ok || got.Has(3) {
		t.Errorf("after Replace: %v, %v", got, ok)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	m := NewSet(130)
	for c := range int64(130) {
		if c != 70 {
			m.Add(c)
		}
	}
	if !m.All(0, 70) || m.All(0, 71) || m.All(60, 130) || !m.All(71, 130) || !m.All(5, 5) {
		t.Error("All is wrong")
	}
	if got := m.FirstMissing(3, 130); got != 70 {
		t.Errorf("FirstMissing = %d, want 70", got)
	}
	if got := m.Len(); got != 129 {
		t.Errorf("Len = %d", got)
	}
	if got, want := m.Bytes(129*Size+5), int64(128*Size+5); got != want {
		t.Errorf("Bytes = %d, want %d", got, want)
	}
	got, ok := parseSet(m.appendTo(nil), 130)
	if !ok || got.Len() != 129 || got.Has(70) {
		t.Error("round trip")
	}
}
