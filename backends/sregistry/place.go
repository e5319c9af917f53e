// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

const (
	// targetLife is how long a presigned URL is used. The server signs for five
	// minutes of its own clock.
	targetLife = 4 * time.Minute
	// maxKnown bounds what is remembered of any one kind.
	maxKnown = 10_000
)

// A place is where the bytes of one version of an image are.
type place struct {
	old    bool   // not in the object store
	target string // the presigned URL; "" if there is none to use again
	until  time.Time
	etag   string // of the bytes in the object store
	size   int64  // -1 if not known
}

func placeKey(img backends.Image) string { return split(img.Ref).String() + "@" + img.Version }

// Places remembers them. The zero value is empty.
type places struct {
	mu  sync.Mutex // guards the field below
	all map[string]place
}

// get returns the place of key, without a target that is too old.
func (p *places) get(key string) (place, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, ok := p.all[key]
	if ok && time.Now().After(at.until) {
		at.target = ""
	}
	return at, ok
}

func (p *places) put(key string, at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil || len(p.all) >= maxKnown {
		p.all = map[string]place{}
	}
	if old, ok := p.all[key]; ok && at.size < 0 {
		at.size = old.size
	}
	at.until = time.Now().Add(targetLife)
	p.all[key] = at
}

// A set of names. The zero value is empty.
type set struct {
	mu  sync.Mutex // guards the field below
	all map[string]bool
}

func (s *set) has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[key]
}

func (s *set) add(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil || len(s.all) >= maxKnown {
		s.all = map[string]bool{}
	}
	s.all[key] = true
}

// names returns what is in s, in order.
func (s *set) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.all))
}

// refusalLife is how long a refusal is believed: until somebody is given a permission.
const refusalLife = 10 * time.Minute

// Refusals remembers which images are not for us. The zero value is empty.
type refusals struct {
	mu  sync.Mutex // guards the field below
	all map[name]refusal
}

type refusal struct {
	err   error
	until time.Time
}

// note remembers err if it says that n is not for us. A login that is refused is another
// matter: the next one can be right.
func (r *refusals) note(n name, err error) {
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, backends.ErrUnauthorized) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil || len(r.all) >= maxKnown {
		r.all = map[name]refusal{}
	}
	r.all[n] = refusal{err, time.Now().Add(refusalLife)}
}

// of returns the refusal of n, nil if there was none lately.
func (r *refusals) of(n name) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if was, ok := r.all[n]; ok && time.Now().Before(was.until) {
		return was.err
	}
	return nil
}
