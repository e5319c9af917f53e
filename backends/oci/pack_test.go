// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

func packed(n int) packKey {
	var k packKey
	binary.LittleEndian.PutUint64(k[:], uint64(n))
	return k
}

// What the tags of a registry cost does not grow with their number: neither in files
// nor beyond a bound in bytes.
func TestPack_manyTags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := newStore(dir, slog.New(slog.DiscardHandler))
	body := bytes.Repeat([]byte("x"), 4<<10)
	for i := range 20_000 {
		tag := fmt.Sprintf("tag-%d", i)
		s.keep("a/b", tag, manifest{digest: fmt.Sprintf("sha256:%064x", i), mediaType: "m", body: body})
	}
	files, bytesUsed := 0, int64(0)
	err := filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			files++
			bytesUsed += info.Size()
		}
		return err
	})
	if err != nil || files > 1 || bytesUsed > maxPack {
		t.Errorf("20,000 tags leave %d files of %d bytes (%v)", files, bytesUsed, err)
	}
	if !s.has("a/b", "tag-19999") || s.has("a/b", "tag-1") {
		t.Error("not the newer ones are kept")
	}
}

// Several may use one file, which may be damaged, cut off, or gone.
func TestPack_shared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := newPack(dir), newPack(dir)
	put := func(p *pack, n int, value string) {
		t.Helper()
		if err := p.put(packed(n), []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(n int, value string) {
		t.Helper()
		for _, p := range []*pack{a, b} {
			if got := string(p.get(packed(n))); got != value || p.has(packed(n)) != (value != "") {
				t.Errorf("get(%d) = %q, want %q", n, got, value)
			}
		}
	}
	put(a, 1, "one")
	put(b, 2, "two")
	put(b, 1, "uno")
	want(1, "uno")
	want(2, "two")
	info, err := os.Stat(a.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(a.path, info.Size()-1); err != nil { // the last record is no more
		t.Fatal(err)
	}
	want(1, "one")
	put(a, 3, "three")
	want(3, "three")
	want(2, "two")
	if err := os.Remove(a.path); err != nil {
		t.Fatal(err)
	}
	want(2, "")
	put(b, 4, "four")
	want(4, "four")
}
