// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"sync"
)

type progressKey struct{}

// OnProgress returns a context for whose requests fn is called whenever bytes of an
// answer come in, from any goroutine: an answer that takes its time, such as a list of
// a hundred thousand names, is no silence. What ctx had calls stays.
func OnProgress(ctx context.Context, fn func()) context.Context {
	if outer, ok := ctx.Value(progressKey{}).(func()); ok {
		inner := fn
		fn = func() { outer(); inner() }
	}
	return context.WithValue(ctx, progressKey{}, fn)
}

// progressed tells those whom OnProgress named.
func progressed(ctx context.Context) {
	if fn, ok := ctx.Value(progressKey{}).(func()); ok {
		fn()
	}
}

// A stored keeps how much a push or a copy has stored at best, and passes on what its tries
// report. Transports read bodies in goroutines of their own, for a moment also after a try has
// ended: what such a body reports then is dropped. The zero value is ready.
type stored struct {
	mu   sync.Mutex // guards the fields below; held while a report is passed on
	best int64
	try  int
}

// begin starts a try, and ends the one before. Its reports are passed on to each, with whether
// they show that it brings something, until end.
func (s *stored) begin(each func(now, total int64, gained bool)) (report func(now, total int64)) {
	try := s.end()
	return func(now, total int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.try != try {
			return
		}
		gained := now >= min(s.best+LeastProgress, total) && now > s.best
		if gained {
			s.best = now
		}
		each(now, total, gained)
	}
}

// end drops what is reported from now on.
func (s *stored) end() (next int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.try++
	return s.try
}
