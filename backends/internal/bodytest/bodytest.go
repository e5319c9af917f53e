// SPDX-License-Identifier: Apache-2.0

// Package bodytest is where the fake services of the tests keep what is stored in
// them: in a file, so that a test needs no more memory for a large image than for a
// small one.
//
// It knows nothing of names and digests, those are the fakes'. Begin at [Open].
package bodytest

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"testing"
)

// A Store is one file that grows until its test ends: nothing in it is taken away or
// changed. Its methods may be called from many goroutines at once.
type Store struct {
	tb   testing.TB
	file *os.File

	mu   sync.Mutex // guards the field below
	size int64
}

// Open makes a store in a temporary directory of the test. What uses it has to end
// before the test does, in a cleanup that is set up later than this.
func Open(tb testing.TB) *Store {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "bodies"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	return &Store{tb: tb, file: f}
}

// Take keeps what r gives. An error is r's, or has failed the test.
func (s *Store) Take(r io.Reader) (Body, error) {
	w := &writer{body: Body{store: s}}
	_, err := io.Copy(w, r)
	return w.body, err
}

// Put keeps content.
func (s *Store) Put(content []byte) Body {
	b, _ := s.Take(bytes.NewReader(content)) // an error has failed the test
	return b
}

// A writer makes a body of what is written to it.
type writer struct{ body Body }

// Write implements io.Writer. Several bodies may grow at the same time, each gets a
// place of its own in the file for what it writes.
func (w *writer) Write(p []byte) (int, error) {
	s := w.body.store
	s.mu.Lock()
	at := s.size
	s.size += int64(len(p))
	s.mu.Unlock()
	n, err := s.file.WriteAt(p, at)
	if err != nil {
		s.tb.Errorf("bodytest: %v", err)
	}
	w.body.add(extent{at: at, size: int64(n)})
	return n, err
}

// A Body is bytes in a store. It never changes; the zero value is an empty one.
type Body struct {
	store   *Store
	extents []extent
	size    int64
}

// An extent is a part of a body that lies in the file as it is.
type extent struct {
	off, at int64 // in the body, in the file
	size    int64
}

// add puts e behind what b has.
func (b *Body) add(e extent) {
	e.off = b.size
	b.size += e.size
	if last := len(b.extents) - 1; last >= 0 && b.extents[last].at+b.extents[last].size == e.at {
		b.extents[last].size += e.size
		return
	}
	b.extents = append(b.extents, e)
}

// Join returns the bodies, which are of one store, one behind the other. It copies
// no bytes.
func Join(bodies ...Body) Body {
	var all Body
	for _, b := range bodies {
		if b.store != nil {
			all.store = b.store
		}
		for _, e := range b.extents {
			all.add(e)
		}
	}
	return all
}

// Size returns how many bytes there are.
func (b Body) Size() int64 { return b.size }

// ReadAt implements io.ReaderAt.
func (b Body) ReadAt(p []byte, off int64) (n int, err error) {
	first := sort.Search(len(b.extents), func(i int) bool { return off < b.extents[i].off+b.extents[i].size })
	for _, e := range b.extents[first:] {
		skip := off + int64(n) - e.off
		part := p[n : n+int(min(int64(len(p)-n), e.size-skip))]
		m, err := b.store.file.ReadAt(part, e.at+skip)
		if n += m; m < len(part) {
			return n, err
		}
		if n == len(p) {
			return n, nil
		}
	}
	return n, io.EOF
}

// Reader returns a reader of all bytes.
func (b Body) Reader() *io.SectionReader { return io.NewSectionReader(b, 0, b.size) }

// CopyTo writes all bytes to each of to, such as hashes, which take them without an
// error.
func (b Body) CopyTo(to ...io.Writer) {
	if b.size == 0 {
		return
	}
	buf := make([]byte, min(b.size, 64<<10))
	if _, err := io.CopyBuffer(io.MultiWriter(to...), b.Reader(), buf); err != nil {
		b.store.tb.Errorf("bodytest: %v", err)
	}
}

// Bytes returns all bytes.
func (b Body) Bytes() []byte {
	var text bytes.Buffer
	b.CopyTo(&text)
	return text.Bytes()
}
