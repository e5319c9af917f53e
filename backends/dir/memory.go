// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// A stamp tells one state of a file or directory from another, as far as its
// file system can.
type stamp struct {
	device, inode    uint64
	size             int64
	modTime, chgTime int64 // nanoseconds since 1970
}

// How long a reading may be used while the stamp stays the same.
const (
	never   time.Duration = 0             // the next change may leave the stamp as it is
	briefly               = time.Second   // what the system says may be out of date itself
	always  time.Duration = math.MaxInt64 // any change makes another stamp
)

// A reading is what was read of one file or directory. It never changes.
type reading[T any] struct {
	value T
	size  int           // bytes of memory, roughly
	of    stamp         // taken before anything was read
	began time.Time     // when that was
	lasts time.Duration // never, briefly or always
}

// A memory keeps readings by path, for who has just looked at the stamp. The
// zero value is ready, and may be used by many goroutines at once.
type memory[T any] struct {
	mu    sync.Mutex // guards the fields below
	slots map[string]*slot[T]
	size  int // of all readings
}

type slot[T any] struct {
	reading sync.Mutex // held by who reads: others wait for what comes of it
	last    atomic.Pointer[reading[T]]
	size    int // as counted in memory.size; guarded by memory.mu
}

// enough is how many bytes of readings a memory keeps. One that is larger by
// itself is kept alone.
const enough = 32 << 20

// A look is a question about one path.
type look struct {
	path  string
	began time.Time
	now   stamp // what the path had after that
	exact bool  // only a reading that lasts always will do
}

func (l look) takes(lasts time.Duration, of stamp, began time.Time) bool {
	if of != l.now || lasts == never || l.exact && lasts != always {
		return false
	}
	return lasts == always || l.began.Sub(began) < lasts
}

// get returns what read gives, or gave before. Of all who ask at the same time
// one reads. Nobody gets a reading that began before he asked, unless the stamp
// says that nothing changed since.
func (m *memory[T]) get(l look, read func() (reading[T], error)) (T, error) {
	s := m.slot(l.path)
	if r := s.last.Load(); r != nil && l.takes(r.lasts, r.of, r.began) {
		return r.value, nil
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	if r := s.last.Load(); r != nil && (r.began.After(l.began) || l.takes(r.lasts, r.of, r.began)) {
		return r.value, nil
	}
	r, err := read()
	if err == nil {
		s.last.Store(&r)
	}
	m.settle(l.path, s)
	return r.value, err
}

// last returns what was read of path, however long ago.
func (m *memory[T]) last(path string) (value T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.slots[path]; s != nil {
		if r := s.last.Load(); r != nil {
			return r.value
		}
	}
	return value
}

func (m *memory[T]) slot(path string) *slot[T] {
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

// settle counts what s holds now, and makes room for it: others go by chance,
// which for who asks for everything in turn is better than the oldest first.
func (m *memory[T]) settle(path string, s *slot[T]) {
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
	if m.size <= enough {
		return
	}
	for other, o := range m.slots {
		if o != s {
			m.remove(other, o)
		}
		if m.size <= enough*3/4 {
			return
		}
	}
}

// slotSize is about what a slot costs without its path and reading's value.
const slotSize = 256

// drop makes the next look at path read, also where one is being read now.
func (m *memory[T]) drop(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.slots[path]; s != nil {
		m.remove(path, s)
	}
}

func (m *memory[T]) remove(path string, s *slot[T]) {
	m.size -= s.size
	delete(m.slots, path)
}
