// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"sync"
	"time"

	"github.com/sregfs/sregfs/catalog/index"
)

// recentWrites are the names that this process published or deleted, and those that
// services reported as changed. The answer to a question that was asked before such a write
// is out of date, whenever it comes. A write is forgotten when no older question is
// under way; questions have time limits, so that nothing is kept for ever. The zero value
// is ready.
type recentWrites struct {
	mu    sync.Mutex           // guards the fields below
	at    map[string]time.Time // by the key of what was written
	next  int
	asked map[int]time.Time // questions under way
	kept  int               // writes that were still needed at the last look
}

// ask notes a question that is asked now. The caller calls answered when its answer is
// stored.
func (w *recentWrites) ask(now time.Time) (answered func()) {
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

// add notes a write that is done: the answers to later questions include it.
func (w *recentWrites) add(at time.Time, keys ...[]byte) {
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
func (w *recentWrites) since(key []byte, asked time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	at, ok := w.at[string(key)]
	return ok && !at.Before(asked)
}

// forget drops the writes that no question needs, once there are enough to be worth a
// look. It needs mu.
func (w *recentWrites) forget() {
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

// doubtKey is the key of a change somewhere below a collection.
func doubtKey(remote, collection string) []byte {
	return append(index.HeaderKey(remote, collection), "below"...)
}

// doubted reports whether the service reported a change in a listing after it was asked for
// it.
func (w *recentWrites) doubted(remote, collection string, asked time.Time) bool {
	if w.since(index.HeaderKey(remote, collection), asked) {
		return true
	}
	for collection != "" {
		if collection, _ = index.Parent(collection); w.since(doubtKey(remote, collection), asked) {
			return true
		}
	}
	return false
}
