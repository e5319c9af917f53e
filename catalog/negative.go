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

// What is remembered in memory only, because it is soon out of date. None of it
// grows without bound.

const maxRemembered = 10_000

// A memory is a set of keys, each with a time. The zero value is ready.
type memory struct {
	mu sync.Mutex
	m  map[string]time.Time
}

func (m *memory) add(key string, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil || len(m.m) >= maxRemembered {
		m.m = make(map[string]time.Time)
	}
	m.m[key] = at
}

// at returns the time of key, zero if it is not there.
func (m *memory) at(key string) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[key]
}

func (m *memory) drop(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.m, key)
}

// dropOlder is drop if the time is before t.
func (m *memory) dropOlder(key []byte, t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if at, ok := m.m[string(key)]; ok && at.Before(t) {
		delete(m.m, string(key))
	}
}

func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.m = nil
}

// failures are the listings that could not be made a short while ago, and the images that
// were refused: a service that is down must not cost every look a full timeout, and one
// that counts requests not a request.
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
		return // it says nothing about the listing
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
	probe time.Time // when somebody waits for it again
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

func (h *health) of(remote string) remoteHealth {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m[remote]
}

// away reports whether the remote did not answer the last time, and whether it
// is this caller's turn to see if it does again.
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

// Passing reports whether err may be gone at the next try.
func Passing(err error) bool {
	return errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrRateLimited) ||
		errors.Is(err, context.DeadlineExceeded)
}
