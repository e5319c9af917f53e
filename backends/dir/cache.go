// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A fileState tells one state of a file or directory from another, as far as its file
// system can.
type fileState struct {
	device, inode    uint64
	size             int64
	modTime, chgTime int64 // nanoseconds since 1970
}

// How long a cached value is valid while the file's state stays the same.
const (
	never   time.Duration = 0             // the next change may leave the state as it is
	briefly               = time.Second   // the system's own answer may be out of date (NFS)
	always  time.Duration = math.MaxInt64 // any change makes another state
)

// A cached value is what was read of one file or directory. It never changes.
type cached[T any] struct {
	value T
	size  int           // bytes of memory, roughly
	of    fileState     // before anything was read
	began time.Time     // when the state was looked at
	lasts time.Duration // never, briefly or always
}

// A readCache keeps values by path. Its callers have just looked at the path's state. The
// zero value is ready, and may be used by many goroutines at once.
type readCache[T any] struct {
	mu    sync.Mutex // guards the fields below
	slots map[string]*slot[T]
	size  int // of all values
}

type slot[T any] struct {
	reading sync.Mutex // held while one caller reads and others wait for its result
	last    atomic.Pointer[cached[T]]
	size    int // as counted in readCache.size; guarded by readCache.mu
}

// maxCached is how many bytes of values a readCache keeps. A value that is larger by
// itself is kept alone.
const maxCached = 32 << 20

// A query asks for the value of one path.
type query struct {
	path  string
	began time.Time
	now   fileState // of the path, after that
	exact bool      // only a value that is valid always is accepted
}

func (l query) accepts(lasts time.Duration, of fileState, began time.Time) bool {
	if of != l.now || lasts == never || l.exact && lasts != always {
		return false
	}
	return lasts == always || l.began.Sub(began) < lasts
}

// get returns the result of read, or a cached one. Of several callers at the same time one
// reads. A caller gets no result of a read that began before its query, unless the state
// shows that nothing has changed since.
func (m *readCache[T]) get(l query, read func() (cached[T], error)) (T, error) {
	s := m.slot(l.path)
	if r := s.last.Load(); r != nil && l.accepts(r.lasts, r.of, r.began) {
		return r.value, nil
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	if r := s.last.Load(); r != nil && (r.began.After(l.began) || l.accepts(r.lasts, r.of, r.began)) {
		return r.value, nil
	}
	r, err := read()
	if err == nil {
		s.last.Store(&r)
	}
	m.account(l.path, s)
	return r.value, err
}

// last returns the cached value of path, whatever its age.
func (m *readCache[T]) last(path string) (value T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.slots[path]; s != nil {
		if r := s.last.Load(); r != nil {
			return r.value
		}
	}
	return value
}

func (m *readCache[T]) slot(path string) *slot[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[path]
	if s == nil {
		s = new(slot[T])
		if m.slots == nil {
			m.slots = map[string]*slot[T]{}
		}
		m.slots[path] = s
	}
	return s
}

// account counts the size of s and makes room for it. Others are evicted at random: LRU is
// the worst policy for a sequential scan.
func (m *readCache[T]) account(path string, s *slot[T]) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slots[path] != s {
		return // it was dropped meanwhile
	}
	r := s.last.Load()
	if r == nil {
		m.remove(path, s)
		return
	}
	size := r.size + len(path) + slotSize
	m.size += size - s.size
	s.size = size
	if m.size <= maxCached {
		return
	}
	for other, o := range m.slots {
		if o != s {
			m.remove(other, o)
		}
		if m.size <= maxCached*3/4 {
			return
		}
	}
}

// slotSize is about what a slot takes besides its path and its value.
const slotSize = 256

// drop makes the next query of path read, even if one is being read now.
func (m *readCache[T]) drop(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.slots[path]; s != nil {
		m.remove(path, s)
	}
}

func (m *readCache[T]) remove(path string, s *slot[T]) {
	m.size -= s.size
	delete(m.slots, path)
}
