// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
)

const (
	// A commit begins when the oldest bytes that are not durable are maxDirtyAge old, or
	// half as old where they are more than maxDirty. So much a crash of the machine may
	// cost. More often would not pay: bytes that come fast are fetched again as fast, and
	// an image that is whole within a second is better synced once. (A crash of the
	// process costs nothing, see chunks.Recent.)
	maxDirtyAge = 2 * time.Second
	maxDirty    = 64 << 20
)

// A stored is the bytes of a blob that are here: the file, and which chunks of it can
// be read. Readers look at have and file without a lock. The download adds chunks, the
// committer makes them durable.
type stored struct {
	size int64                   // of the blob, in bytes
	file atomic.Pointer[os.File] // for reading; replaced when another file of the same bytes is here
	have chunks.Set              // chunks that can be read; empty if it was whole when it was opened

	disk    sync.Mutex // held while the map or the names of the files change
	written *os.File   // for writing; nil when whole
	durable chunks.Set // chunks on stable storage
	retired []*os.File // replaced ones that readers may still use

	mu         sync.Mutex     // guards the fields below
	recent     *chunks.Recent // chunks written since the map was
	dirty      int64          // bytes that the map does not know of
	dirtySince time.Time      // the oldest of them
}

// add notes that a chunk can be read.
func (s *stored) add(chunk int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have.Add(chunk)
	s.recent.Note(chunk, s.have)
	if s.dirty == 0 {
		s.dirtySince = time.Now()
	}
	s.dirty += chunks.Size
}

// due reports whether something is to be made durable that came in longer than age ago,
// or half as long where that is more than maxDirty.
func (s *stored) due(age time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dirty >= maxDirty {
		age /= 2
	}
	return s.dirty > 0 && time.Since(s.dirtySince) >= age
}

// takeDirty returns how many bytes the map does not know of, and all chunks that are
// here: what is about to be made durable.
func (s *stored) takeDirty() (n int64, have chunks.Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, s.dirty = s.dirty, 0
	return n, s.have.Clone()
}

// putDirty undoes takeDirty for n bytes.
func (s *stored) putDirty(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty += n
	s.dirtySince = time.Now()
}

// forget drops the chunks of bits that are not durable: after a failed sync the kernel
// may have dropped their pages, and says so only once (lwn.net/Articles/752063). list
// is the file of recent chunks. Call with disk held.
func (s *stored) forget(bits chunks.Set, list string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range chunks.Count(s.size) {
		if bits.Has(n) && !s.durable.Has(n) {
			s.have.Remove(n)
		}
	}
	if err := s.recent.Replace(s.have); err != nil {
		s.recent.Close()
		s.recent = nil
		_ = os.Remove(list)
	}
}

// recall adds the chunks that a map and the list of recent chunks (nil if there is none)
// name, unless there is a hole in the file where they should be.
func (s *stored) recall(m *chunks.Map, recent chunks.Set) {
	f := s.file.Load()
	for off := int64(0); off < s.size; {
		start, end, ok := nextData(f, off, s.size)
		if !ok {
			break
		}
		last := end / chunks.Size
		if end >= s.size {
			last = chunks.Count(s.size)
		}
		for n := chunks.Count(start); n < last; n++ {
			if m.Have.Has(n) {
				s.have.Add(n)
				s.durable.Add(n)
			} else if recent != nil && recent.Has(n) {
				s.have.Add(n)
				s.dirty += chunks.Size
			}
		}
		off = end
	}
}

// inPlace reports whether the file that is written still has the name path.
func (s *stored) inPlace(path string) bool {
	named, err := os.Lstat(path)
	if err != nil {
		return false
	}
	info, err := s.written.Stat()
	return err == nil && os.SameFile(named, info)
}

// replace makes readers go on with another file of the same bytes, and returns the
// former one, which stays open until close. Call with disk held.
func (s *stored) replace(f *os.File) (former *os.File) {
	former = s.file.Swap(f)
	s.retired = append(s.retired, former)
	return former
}

// closeWriter is called with disk held. A file that is open for writing cannot be
// executed (ETXTBSY), so it does not stay open longer than needed.
func (s *stored) closeWriter() {
	if s.written != nil {
		s.written.Close()
		s.written = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recent.Close()
	s.recent = nil
}

// close closes all files. Nobody uses them any more.
func (s *stored) close() {
	s.disk.Lock()
	defer s.disk.Unlock()
	s.closeWriter()
	s.file.Load().Close()
	for _, f := range s.retired {
		f.Close()
	}
}
