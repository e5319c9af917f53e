// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
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
// The zero value is ready. For concurrent use.
type idleBlobs struct {
	mu  sync.Mutex // guards the field below; taken last
	all []idleBlob
}

type idleBlob struct {
	data  *data
	since time.Time
}

// put adds d with its use, and returns the one that has to make room, if any.
// first reports whether there was none before.
func (s *idleBlobs) put(d *data) (out *data, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = len(s.all) == 0
	if len(s.all) == maxIdle {
		out = s.all[0].data
		s.all = slices.Delete(s.all, 0, 1)
	}
	s.all = append(s.all, idleBlob{d, time.Now()})
	return out, first
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

// shut takes a whole d off the item, after its last handle, and returns whose use
// ends with that: d's own, or if d became idle, that of the one which made room
// for it; nil if none did. Call with mu held.
func (it *item) shut(d *data) (gone *data) {
	// Not if it became whole while it was open, or is not what it was then.
	if d.info == nil || !d.untouched() {
		it.leaveData(d)
		return d
	}
	it.data, it.handles = nil, 0
	gone, first := it.cache.idle.put(d)
	if first {
		it.cache.poke(it.cache.idled)
	}
	return gone
}

// untouched reports whether the file is as it was when it was opened, and has its name.
func (d *data) untouched() bool {
	info, err := d.stored.file.Load().Stat()
	return err == nil && unchanged(d.info, info)
}

// resume opens the blob that is idle, if its name still leads there. Else the idle
// one is closed, and resume returns nil. Call with busy held, while data is nil.
func (it *item) resume(src source) *data {
	d := it.cache.idle.take(it)
	if d == nil {
		return nil
	}
	defer d.leave() // as an idle one
	info, err := os.Lstat(d.stored.file.Load().Name())
	if err != nil || !unchanged(d.info, info) || d.check.digest != it.digestOf(src) ||
		src.image.Size >= 0 && src.image.Size != d.size {
		return nil
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.rec.State != Cached {
		return nil
	}
	it.data, it.handles = d, 0
	it.addHandle(d)
	return d
}

// closeIdle is called before the blob's files are removed.
func (it *item) closeIdle() {
	if d := it.cache.idle.take(it); d != nil {
		d.leave()
	}
}
