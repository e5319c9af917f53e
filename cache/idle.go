// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"slices"
	"sync"
	"time"
)

// Starting containers opens the same image many times in a row. The cost of opening a
// whole blob is the file calls, so the files of the last few stay open for idleAge, and
// opening one again asks only whether its name still leads to it, unchanged.
const (
	maxIdle = 64
	idleAge = 5 * time.Second
)

// idleBlobs are the whole blobs that were open until a moment ago, the oldest first.
// Each counts as one use of its data, but not as a handle: whoever removes a
// blob's files closes its idle blob, and if not, it is found out at the next opening.
// For concurrent use.
type idleBlobs struct {
	wake chan struct{} // wakes who closes them, when there is a first one

	mu  sync.Mutex // guards the field below; taken last
	all []idleBlob
}

type idleBlob struct {
	data  *data
	since time.Time
}

// put adds d with its use, and returns the one that has to make room, if any.
func (s *idleBlobs) put(d *data) (out *data) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) == 0 {
		wake(s.wake)
	}
	if len(s.all) == maxIdle {
		out = s.all[0].data
		s.all = slices.Delete(s.all, 0, 1)
	}
	s.all = append(s.all, idleBlob{d, time.Now()})
	return out
}

// take returns the idle blob of it, and its use; nil if there is none.
func (s *idleBlobs) take(it *item) *data {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, sp := range slices.Backward(s.all) {
		if sp.data.item == it {
			s.all = slices.Delete(s.all, i, i+1)
			return sp.data
		}
	}
	return nil
}

// close closes those that are there for at least age, and reports whether there
// are others.
func (s *idleBlobs) close(age time.Duration) (more bool) {
	s.mu.Lock()
	n := 0
	for n < len(s.all) && time.Since(s.all[n].since) >= age {
		n++
	}
	old := slices.Clone(s.all[:n])
	s.all = slices.Delete(s.all, 0, n)
	more = len(s.all) > 0
	s.mu.Unlock()
	for _, sp := range old {
		sp.data.leave()
	}
	return more
}
