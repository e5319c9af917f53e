// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"sync"
	"time"
)

// ownWrites are what we published and deleted, and what services told that they
// changed: the answer to a question that was asked before says nothing of it,
// whenever it comes. A write is forgotten when no question is under way that is
// older; questions have time limits, so that nothing is kept for ever. The zero
// value is ready.
type ownWrites struct {
	mu    sync.Mutex           // guards the fields below
	at    map[string]time.Time // by the key of what was written
	next  int
	asked map[int]time.Time // questions under way
	kept  int               // writes that were needed still when last looked
}

// ask notes a question that is asked now. The caller calls answered when the
// answer is stored.
func (w *ownWrites) ask(now time.Time) (answered func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked == nil {
		w.asked = make(map[int]time.Time)
	}
	id := w.next
	w.next++
	w.asked[id] = now
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.asked, id)
		w.forget()
	}
}

// add notes a write that is done. Those who ask from now on hear of it.
func (w *ownWrites) add(at time.Time, keys ...[]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) == 0 {
		return
	}
	if w.at == nil {
		w.at = make(map[string]time.Time)
	}
	for _, key := range keys {
		w.at[string(key)] = at
	}
}

// since reports whether there was a write at that time or later.
func (w *ownWrites) since(key []byte, asked time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.at[string(key)]
	return ok && !at.Before(asked)
}

// forget drops what no question needs any more, once there is enough of it to be
// worth looking for. It needs mu.
func (w *ownWrites) forget() {
	if len(w.asked) == 0 {
		w.at, w.kept = nil, 0
		return
	}
	if len(w.at) < 2*w.kept+maxRemembered {
		return
	}
	var oldest time.Time
	for _, asked := range w.asked {
		if oldest.IsZero() || asked.Before(oldest) {
			oldest = asked
		}
	}
	for key, at := range w.at {
		if at.Before(oldest) {
			delete(w.at, key)
		}
	}
	w.kept = len(w.at)
}
