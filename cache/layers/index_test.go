// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/zran"
)

const testLayer = digest.Digest("sha256:2eb02c973487ac0b92f00a00b221279549afddefc3a4eccb634eeba7c8bd5075")

// written returns the bytes of an index with one record of each kind.
func written(tb testing.TB) []byte {
	tb.Helper()
	dir := tb.TempDir()
	x, err := openIndex(dir, testLayer, "from", nil)
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range []record{
		{Entries: []vsif.Entry{{Name: "a", Kind: vsif.File, Size: 3}}, Next: 1024, Sums: [][]byte{make([]byte, sumSize)}, Point: &point{Point: zran.Point{In: 10, Out: 20, Window: []byte("window")}}},
		{Members: []vsif.Member{{Size: 3, To: 9}}, End: &end{Size: 2048}},
		{Held: &held{"name", 7}},
	} {
		if _, err := x.add(r); err != nil {
			tb.Fatal(err)
		}
	}
	if err := x.finish(dir, testLayer); err != nil {
		tb.Fatal(err)
	}
	x.f.Close()
	text, err := os.ReadFile(pathOf(dir, testLayer, ""))
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// Whatever a file has, what is read of it are its first records, unchanged, and it is cut
// off behind them.
func FuzzIndex(f *testing.F) {
	text := written(f)
	f.Add(text)
	f.Add(text[:len(text)-1])
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "index")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l := &layer{bound: 1 << 40, whole: -1, points: []ref{{}}}
		x, err := readIndex(path, testLayer, l.learn)
		if err != nil {
			return
		}
		defer x.f.Close()
		left, err := os.ReadFile(path)
		if err != nil || int64(len(left)) != x.size || !bytes.HasPrefix(b, left) {
			t.Errorf("%d bytes are left of %d, and %d were read: %v", len(left), len(b), x.size, err)
		}
		if _, err := x.entries(); err != nil {
			t.Errorf("read again: %v", err)
		}
	})
}

// An index is found under the name that it got, and goes on where it ended.
func TestIndex(t *testing.T) {
	dir := t.TempDir()
	path := pathOf(dir, testLayer, "")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, written(t), 0o600); err != nil {
		t.Fatal(err)
	}
	l := &layer{bound: 1 << 40, whole: -1, points: []ref{{}}}
	x, err := openIndex(dir, testLayer, "another", l.learn)
	if err != nil {
		t.Fatal(err)
	}
	l.index = x
	defer l.close()
	if size, ok := l.known(); !ok || size != 2048 || len(l.points) != 2 || len(l.members) != 1 || len(l.held) != 1 || l.last() != 20 {
		t.Errorf("%+v", l)
	}
	p, _, err := l.start(25, 30, false)
	if err != nil || string(p.Point.Window) != "window" {
		t.Errorf("the point: %+v, %v", p, err)
	}
	if entries, err := l.entries(); err != nil || len(entries) != 1 || entries[0].Name != "a" {
		t.Errorf("entries %v, %v", entries, err)
	}
}
