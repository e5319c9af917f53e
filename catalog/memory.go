// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// What is kept in memory only, because it is soon out of date. Its size is bounded.

const maxRemembered = 10_000

// A negativeCache has the keys of names that a registry did not have. The zero value is
// ready.
type negativeCache struct {
	mu sync.Mutex
	m  map[string]absence
}

// An absence is the answer that there is no such image. Its error is kept because a lookup that is
// repeated must give the same message.
type absence struct {
	err error
	at  time.Time
}

func (m *negativeCache) add(key string, a absence) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil || len(m.m) >= maxRemembered {
		m.m = make(map[string]absence)
	}
	m.m[key] = a
}

// get returns what was answered about key, the zero value if it is not there.
func (m *negativeCache) get(key string) absence {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[key]
}

func (m *negativeCache) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, key)
}

// dropOlder is drop if the time is before t.
func (m *negativeCache) dropOlder(key []byte, t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a, ok := m.m[string(key)]; ok && a.at.Before(t) {
		delete(m.m, string(key))
	}
}

func (m *negativeCache) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.m = nil
}

// failures are the listings that failed a short while ago, and the images that were
// refused. Without them each lookup at a service that is down would take a full timeout,
// and each at a service that counts requests would use one up.
type failures struct {
	mu sync.Mutex
	m  map[string]failure
}

type failure struct {
	err   error
	until time.Time
}

func (f *failures) add(key string, err error, until time.Time) {
	if _, short := backends.Shortage(err); short {
		return // this machine is short of something; the registry may be well
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.m == nil || len(f.m) >= maxRemembered {
		f.m = make(map[string]failure)
	}
	f.m[key] = failure{err, until}
}

// recent returns the error of a listing that was tried just now.
func (f *failures) recent(key string, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if v, ok := f.m[key]; ok && now.Before(v.until) {
		return v.err
	}
	return nil
}

// last returns the error of a listing since it went well last.
func (f *failures) last(key string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m[key].err
}

func (f *failures) drop(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.m, key)
}

func (f *failures) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.m = nil
}

// health is how the remotes answered last.
type health struct {
	mu sync.Mutex
	m  map[string]remoteHealth
}

type remoteHealth struct {
	seen  time.Time // the last answer
	err   error     // the last error, nil after an answer
	away  bool      // it does not answer: what is known is shown without waiting
	probe time.Time // when it is asked again
}

// note records the outcome of a question.
func (h *health) note(remote string, err error, now time.Time) {
	_, short := backends.Shortage(err)
	if short || errors.Is(err, context.Canceled) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, ErrClosed) || errors.Is(err, index.ErrStore) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.m == nil {
		h.m = make(map[string]remoteHealth)
	}
	v := h.m[remote]
	if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		v = remoteHealth{seen: now}
	} else {
		v.err, v.away = err, v.away || Passing(err)
	}
	h.m[remote] = v
}

func (h *health) forget(remote string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.m, remote)
}

func (h *health) of(remote string) remoteHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m[remote]
}

// away reports whether the remote did not answer the last time, and whether this caller
// is the one to ask it again.
func (h *health) away(remote string, now time.Time, every time.Duration) (away, probe bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.m[remote]
	if !v.away {
		return false, false
	}
	if probe = !now.Before(v.probe); probe {
		v.probe = now.Add(every)
		h.m[remote] = v
	}
	return true, probe
}

// Passing reports whether err is one that another try may not meet.
func Passing(err error) bool {
	return errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrRateLimited) ||
		errors.Is(err, context.DeadlineExceeded)
}

// Many registries list names only, so that "ls -l" costs a request for each. After three
// lookups in one collection that had to ask, the facts of the following names are
// prefetched, as a kernel reads ahead in a file. A single stat stays a single request.
const (
	prefetchAfter  = 3
	prefetchMin    = 16
	prefetchMax    = 1024
	prefetchForget = 10 * time.Second // without a lookup: count from the start again
)

// A prefetcher counts the lookups in each collection that had to ask. The zero value is
// ready.
type prefetcher struct {
	mu sync.Mutex
	m  map[string]*stream // by key of the collection's listing
}

type stream struct {
	asked   int
	last    time.Time
	window  int
	running bool
}

// next counts a lookup that had to ask, and returns how many names to prefetch; 0 if
// none. If it is positive, the caller calls done when they are there.
func (a *prefetcher) next(key string, now time.Time) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.m == nil || len(a.m) >= maxRemembered {
		a.m = make(map[string]*stream)
	}
	st := a.m[key]
	if st == nil || now.Sub(st.last) > prefetchForget && !st.running {
		st = &stream{}
		a.m[key] = st
	}
	st.asked++
	st.last = now
	if st.asked < prefetchAfter || st.running {
		return 0
	}
	st.running = true
	st.window = min(max(prefetchMin, 2*st.window), prefetchMax)
	return st.window
}

func (a *prefetcher) done(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if st := a.m[key]; st != nil {
		st.running = false
	}
}
