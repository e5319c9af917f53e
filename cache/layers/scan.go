// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/sregfs/sregfs/backends/vsif"
)

const (
	tarBlock = 512
	// maxEntries bounds the memory of one layer's headers; an image has no room for more.
	maxEntries = 2_000_000
	// maxSparse is how many bytes the sparse files of one layer have in all, with their holes, which
	// take time and no room.
	maxSparse = 16 << 30
)

// A scanner reads the headers of a tar that is written to it.
type scanner struct {
	w    *io.PipeWriter
	done chan struct{} // closed when all headers were read, or it has failed

	mu      sync.Mutex // guards the fields below
	entries []vsif.Entry
	next    int64 // where the header behind them begins
	err     error
}

// newScanner returns a scanner of the bytes of a tar from an offset on, where a header
// begins; count headers lie before it.
func newScanner(next int64, count int) *scanner {
	r, w := io.Pipe()
	s := &scanner{w: w, done: make(chan struct{}), next: next}
	go s.run(&position{r: r, at: next}, r, count)
	return s
}

func (s *scanner) run(in *position, pipe *io.PipeReader, count int) {
	defer close(s.done)
	err := s.scan(in, count)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	if err == nil { // what follows the end of the archive is none
		_, _ = io.Copy(io.Discard, pipe)
	}
	_ = pipe.CloseWithError(err)
}

func (s *scanner) scan(in *position, count int) error {
	r := tar.NewReader(in)
	holes := int64(0)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: its tar: %v", vsif.ErrLayer, err)
		}
		e, ok, err := vsif.FromHeader(h, in.at)
		if err != nil {
			return err
		}
		next := in.at
		if e.Sparse {
			e.Offset = s.next // its header tells where its bytes belong
			if holes += e.Size; holes > maxSparse {
				return fmt.Errorf("%w: sparse files of %d bytes", vsif.ErrLayer, holes)
			}
			if e.Blocks, err = blocksOf(r); err != nil {
				return fmt.Errorf("%w: %q: %v", vsif.ErrLayer, h.Name, err)
			}
			next = in.at
		} else if ok && e.Kind == vsif.File {
			next += e.Size
		}
		if count++; count > maxEntries {
			return fmt.Errorf("%w: more than %d files", vsif.ErrLayer, maxEntries)
		}
		s.mu.Lock()
		if ok {
			s.entries = append(s.entries, e)
		}
		s.next = (next + tarBlock - 1) / tarBlock * tarBlock
		s.mu.Unlock()
	}
}

// blocksOf returns which blocks of a sparse file have a byte that is not 0.
func blocksOf(r io.Reader) (bits []byte, err error) {
	block := make([]byte, vsif.BlockSize)
	for i := 0; ; i++ {
		n, err := io.ReadFull(r, block)
		if n == 0 && errors.Is(err, io.EOF) {
			return bits, nil
		}
		if i%8 == 0 {
			bits = append(bits, 0)
		}
		if !isZero(block[:n]) {
			bits[i/8] |= 1 << (i % 8)
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
			return bits, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// take returns the entries since the last take, and where the header behind them begins.
func (s *scanner) take() (entries []vsif.Entry, next int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, s.entries = s.entries, nil
	return entries, s.next
}

// finish tells that the tar has ended. Errors: vsif.ErrLayer.
func (s *scanner) finish() error {
	_ = s.w.Close() // it never fails
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// stop ends the scanner.
func (s *scanner) stop() {
	_ = s.w.CloseWithError(errStopped)
	<-s.done
}

var errStopped = errors.New("no longer read")

// A position is a reader that knows at which offset it is.
type position struct {
	r  io.Reader
	at int64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	return n, err
}
