// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
)

// An item is what the cache knows of one blob from one origin, open or not: a member
// of a family, which has the lock for its files.
type item struct {
	*common
	family *family
	key    Key
	from   origin // "" of a main one

	nameless atomic.Bool // its files have no names any more, see HandOver

	mu       sync.Mutex // guards the fields below; no two at once
	rec      Record
	have     int64 // bytes present, as of when data was last open
	handles  int
	data     *data   // nil while it is not open
	served   *served // of the bytes of a part that are here; nil if none of them were
	mismatch mismatch
	shared   bool        // the whole blob was last read in a shared cache
	vouched  os.FileInfo // of a file of a shared cache whose digest matched; nil if there is none
}

// isMain reports whether the item is that of the whole and verified blob.
func (it *item) isMain() bool { return it.from == "" }

// slot returns where the item's files are.
func (it *item) slot() slot {
	dir := it.dir
	if it.nameless.Load() {
		dir = dir.nowhere()
	}
	return dir.slot(it.key, it.from)
}

// id returns how the map beside the files identifies them.
func (it *item) id() Key {
	if it.isMain() {
		return it.key
	}
	return it.key + "." + Key(it.from)
}

// open reports whether d is open through the item.
func (it *item) open(d *data) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.data == d && it.handles > 0
}

// live returns the data that is open and how many handles it has; nil if there is none.
// If the data is dying, live waits until its committer has removed the files, and returns
// nil. Call with the family's lock held.
func (it *item) live() (*data, int) {
	it.mu.Lock()
	d, handles := it.data, it.handles
	it.mu.Unlock()
	if d == nil || d.phase.Load() != dead {
		return d, handles
	}
	d.stored.disk.Lock()
	defer d.stored.disk.Unlock()
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.data, it.handles
}

// enter adds a handle to the data that is open, nil if there is none.
func (it *item) enter() *data {
	it.mu.Lock()
	defer it.mu.Unlock()
	d := it.data
	if d == nil || d.phase.Load() == dead {
		return nil
	}
	it.addHandle(d)
	return d
}

// addHandle is called with mu held.
func (it *item) addHandle(d *data) {
	it.handles++
	it.rec.Used = time.Now()
	d.mu.Lock()
	d.users++
	d.mu.Unlock()
}

// opened takes note of what was opened, with its first handle.
func (it *item) opened(d *data) {
	info := d.info
	if info == nil {
		info, _ = d.stored.file.Load().Stat()
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	it.data, it.handles = d, 0
	it.rec.Size, it.rec.State, it.shared = d.size, d.state(), d.shared
	if info != nil && !d.shared {
		it.setOnDisk(disk.Allocated(info))
	}
	it.addHandle(d)
}

// rest is called when the committer ends: without handles nobody uses d any more.
func (it *item) rest(d *data) {
	defer it.family.tidy()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data == d && it.handles == 0 {
		it.leaveData(d)
	}
}

// retire ends d if nobody has it open and nothing comes in.
func (it *item) retire(d *data) bool {
	defer it.family.tidy()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data != d {
		return true
	}
	idle := it.handles == 0 && d.download.StopIfIdle()
	if idle {
		it.leaveData(d)
	}
	return idle
}

// detach parts the item from d, also while d is open.
func (it *item) detach(d *data) {
	defer it.family.tidy()
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data != d {
		return
	}
	if d.download != nil {
		d.download.Stop()
	}
	it.leaveData(d)
}

// leaveData takes d off the item and notes what is left on the disk. Call with mu
// held, and family.tidy after it.
func (it *item) leaveData(d *data) {
	it.data, it.handles = nil, 0
	var onDisk int64
	it.rec.State = Remote
	switch phase := d.phase.Load(); {
	case phase == partial:
		if info, err := os.Lstat(it.slot().part()); err == nil {
			onDisk, it.have, it.rec.State = disk.Allocated(info), d.present(), Partial
		}
	case phase == whole && it.isMain():
		if info, err := os.Lstat(it.dir.file(it.key)); err == nil {
			onDisk, it.have, it.rec.State = disk.Allocated(info), d.size, Cached
		}
	default: // nothing, or what is the main one's now
		it.have, it.served = 0, nil
	}
	it.setOnDisk(onDisk)
	it.records.touch(it.key)
}

// closeFiles takes the files away from the handles that are still open.
func (it *item) closeFiles() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if d := it.data; d != nil {
		it.leaveData(d)
		d.stored.file.Load().Close()
	}
}

// bury ends d with err for all its handles, and removes its files. Call with
// the disk lock of d held.
func (it *item) bury(d *data, err error) {
	wasPartial := d.kill(err)
	if err := it.slot().drop(); err != nil {
		it.log.Warn("cannot remove a blob", "key", it.key, "err", err)
	}
	it.detach(d)
	it.watchers.announce(it.key, Remote)
	if wasPartial {
		close(d.settled)
	}
}

// erase removes the files of an item that is not open. Call with the family's lock and
// mu held.
func (it *item) erase() error {
	if err := it.slot().drop(); err != nil {
		return localError("remove", err)
	}
	it.setOnDisk(0)
	it.have, it.rec.State, it.served = 0, Remote, nil
	it.records.touch(it.key)
	it.watchers.announce(it.key, Remote)
	return nil
}

// setOnDisk is called with mu held.
func (it *item) setOnDisk(n int64) {
	it.usage.blobs.Add(n - it.rec.OnDisk)
	it.rec.OnDisk = n
}

// measured notes how much of the disk the blob takes.
func (it *item) measured(onDisk int64) {
	it.mu.Lock()
	it.setOnDisk(onDisk)
	first := it.rec.State == Remote
	if first {
		it.rec.State = Partial
	}
	it.mu.Unlock()
	it.records.touch(it.key)
	if first {
		it.watchers.announce(it.key, Partial)
	}
}

// arrived notes that a blob is whole and in its place. Call on the main item.
func (it *item) arrived(info os.FileInfo) {
	it.mu.Lock()
	it.rec.Used = time.Now()
	it.verified(info)
	it.mu.Unlock()
	it.records.touch(it.key)
	wake(it.usage.full)
	it.watchers.announce(it.key, Cached)
}

// verified is called with mu held.
func (it *item) verified(info os.FileInfo) {
	it.shared = false
	it.rec.State, it.rec.Size, it.have = Cached, info.Size(), info.Size()
	it.rec.Verified, it.rec.ModTime = time.Now(), info.ModTime()
	it.setOnDisk(disk.Allocated(info))
}

// mismatched counts a download that did not match its digest, and reports whether to
// try once more without being asked.
func (it *item) mismatched(err error) (again bool) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.mismatch = mismatch{row: it.mismatch.row + 1, at: time.Now(), err: err}
	return it.mismatch.row < maxMismatches && !it.opts.NoBackground
}

// servedOf returns what was served of the bytes that are here.
func (it *item) servedOf(size int64) *served {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.served == nil || it.served.size != size {
		it.served = newServed(size)
	}
	return it.served
}

// exit takes a handle off.
func (it *item) exit(d *data) {
	gone := d
	it.mu.Lock()
	if it.data == d {
		it.handles--
		it.rec.Used = time.Now()
		// A whole blob has no committer: its last handle closes it.
		if it.handles == 0 && d.phase.Load() == whole {
			gone = it.shut(d)
		}
	}
	it.mu.Unlock()
	if !it.isMain() && d.phase.Load() == whole {
		m := it.family.main
		m.mu.Lock()
		m.rec.Used = time.Now() // its file was read
		m.mu.Unlock()
	}
	it.family.tidy()
	it.records.touch(it.key)
	it.usage.closed()
	if gone != nil {
		gone.leave()
		gone.notifyCommitter()
	}
}

// shut takes a whole d off the item, after its last handle, and returns the data that the
// caller has to leave: d itself, or if d became idle, the one that made room for it; nil
// if none did. Call with mu held.
func (it *item) shut(d *data) (gone *data) {
	// Not if it became whole while it was open, or if the file changed.
	if d.info == nil || !d.untouched() {
		it.leaveData(d)
		return d
	}
	it.data, it.handles = nil, 0
	return it.family.table.idle.put(d)
}

// untouched reports whether the file is as it was when it was opened, and has its name.
func (d *data) untouched() bool {
	info, err := d.stored.file.Load().Stat()
	return err == nil && unchanged(d.info, info)
}

// Starting containers opens the same image many times in a row. The cost of opening a
// whole blob is the file calls, so the files of the last few stay open for idleAge, and
// opening one again asks only whether its name still leads to it, unchanged.
const (
	maxIdle = 64
	idleAge = 5 * time.Second
)

// idleBlobs are the whole blobs that were open until a moment ago, the oldest first.
// Each counts as one use of its data, but not as a handle. Removing a blob's files closes
// its idle blob; where that was not done, the next opening notices.
// For concurrent use.
type idleBlobs struct {
	wake chan struct{} // wakes the janitor when there is a first one

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

// take removes and returns the idle blob of the item; nil if there is none.
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
