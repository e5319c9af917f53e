// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/fetch"
)

// An evictor removes blobs that nobody needs when there is no room: those used longest
// ago first; those that are open, being fetched or pinned stay.
type evictor struct {
	*common
	table    *table
	metadata metadata
	pins     sync.Map // keys of the blobs that stay

	mu sync.Mutex // held while evicting
}

// pinned reports whether a blob stays.
func (e *evictor) pinned(key Key) bool {
	_, ok := e.pins.Load(key)
	return ok
}

// trim evicts until the limits hold with room for need more bytes, and returns how many
// bytes it freed.
func (e *evictor) trim(need int64) int64 {
	if !e.usage.over(need) {
		e.usage.crowded.Store(false)
		return 0
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	defer func() { e.usage.crowded.Store(e.usage.over(0)) }()
	over := func() bool { return e.usage.over(need) }
	freed := e.metadata.trim(func() bool { return over() && e.usage.muchMetadata() })
	for _, it := range e.oldest() {
		if !over() {
			return freed
		}
		freed += e.evict(it)
	}
	return freed + e.metadata.trim(over)
}

// oldest returns the items by their last use.
func (e *evictor) oldest() []*item {
	items := e.table.items()
	used := make(map[*item]int64, len(items))
	for _, it := range items {
		it.mu.Lock()
		used[it] = it.rec.Used.UnixNano()
		it.mu.Unlock()
	}
	slices.SortFunc(items, func(a, b *item) int { return cmp.Compare(used[a], used[b]) })
	return items
}

// evict removes the blob unless somebody needs it, and returns the bytes freed.
func (e *evictor) evict(it *item) int64 {
	f := it.family
	if !f.trySeize() {
		return 0
	}
	defer f.release()
	f.closeIdle()
	read := it.isMain() && f.readAsPart()
	it.mu.Lock()
	defer it.mu.Unlock()
	if e.handedOver.Load() || it.data != nil || it.rec.OnDisk == 0 || e.pinned(it.key) || read {
		return 0
	}
	n := it.rec.OnDisk
	if err := it.erase(); err != nil {
		e.log.Warn("cannot evict a blob", "key", it.key, "err", err)
		return 0
	}
	return n
}

// readAsPart reports whether the whole file is read through a handle that was opened
// before it was whole.
func (f *family) readAsPart() bool {
	for _, p := range f.members() {
		if d, _ := p.live(); p != f.main && d != nil && d.phase.Load() == whole {
			return true
		}
	}
	return false
}

// abandon drops a blob that nobody has open and that is still being fetched, or
// has just been, and returns how many bytes that frees.
func (e *evictor) abandon(it *item) int64 {
	if !it.family.trySeize() {
		return 0
	}
	defer it.family.release()
	it.mu.Lock()
	d, n := it.data, max(it.rec.OnDisk, 1)
	idle := d != nil && it.handles == 0 && d.phase.Load() == partial
	it.mu.Unlock()
	if !idle || e.pinned(it.key) || !d.stored.disk.TryLock() {
		return 0
	}
	defer d.stored.disk.Unlock()
	it.bury(d, ErrClosed)
	_ = d.stored.written.Truncate(0) // frees the room now, not when the last request has ended
	return n
}

// abandonFor makes room for n bytes that a reader waits for by dropping downloads that
// nobody reads.
func (e *evictor) abandonFor(n int64) (freed bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, it := range e.oldest() {
		if freed = e.abandon(it) > 0 || freed; freed && e.usage.fits(n) {
			break
		}
	}
	return freed
}

// evictFor makes room after n bytes could not be written, and reports whether it freed
// something. For a reader it also drops downloads that nobody reads.
func (e *evictor) evictFor(n int64, reading bool) bool {
	// The disk may be full for us (a quota) while statfs shows room: free at
	// least one blob.
	if e.trim(n) > 0 {
		return true
	}
	return e.evictOne() || reading && e.abandonFor(n)
}

func (e *evictor) evictOne() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, it := range e.oldest() {
		if e.evict(it) > 0 {
			return true
		}
	}
	return false
}

// writeAt writes to a file of the cache; when the disk is full it evicts and tries again.
// Errors: those of f.
func (e *evictor) writeAt(f *os.File, p []byte, off int64, reading func() bool) (int, error) {
	n, err := f.WriteAt(p, off)
	if isFull(err) && e.evictFor(int64(len(p)), reading()) {
		n, err = f.WriteAt(p, off)
	}
	if err == nil {
		e.usage.grew(int64(len(p)))
	}
	return n, err
}

// Metadata is the key of all metadata, for Remove and Info.
const Metadata Key = "metadata"

// metadata is what registries answered (manifests, an index), which the backends keep in
// folders beside the blobs. It may be fetched again as blobs may: it counts as they do,
// and is removed when there is no room.
type metadata struct{ *common }

// A metaFile is a file of a backend.
type metaFile struct {
	path string
	size int64 // bytes of the disk
	used time.Time
}

// files returns the files of the backends, those that were written longest ago
// first, and notes how much they take.
func (m metadata) files() (files []metaFile) {
	var sum int64
	for _, dir := range []string{m.dir.remotes(), m.dir.layers()} {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil //nolint:nilerr // what cannot be read is not counted
			}
			if info, err := e.Info(); err == nil {
				files = append(files, metaFile{path, disk.Allocated(info), info.ModTime()})
				sum += disk.Allocated(info)
			}
			return nil
		})
	}
	m.usage.meta.Store(sum)
	slices.SortFunc(files, func(a, b metaFile) int { return a.used.Compare(b.used) })
	return files
}

// trim removes files of the backends as long as still says so, and returns how many
// bytes it freed.
func (m metadata) trim(still func() bool) (freed int64) {
	if m.handedOver.Load() {
		return 0
	}
	for _, f := range m.files() {
		if !still() {
			break
		}
		if err := os.Remove(f.path); err == nil {
			m.usage.meta.Add(-f.size)
			freed += f.size
		}
	}
	return freed
}

// remove removes all of it. Errors: those of the local disk.
func (m metadata) remove() error {
	var errs []error
	for _, f := range m.files() {
		errs = append(errs, ignoreMissing(os.Remove(f.path)))
	}
	m.files()
	return localError("remove", errors.Join(errs...))
}

// removeFormer removes what earlier versions kept: a file for each manifest
// and each tag.
func (m metadata) removeFormer() {
	old, _ := filepath.Glob(filepath.Join(m.dir.remotes(), "*", "manifests", "??"))
	for _, dir := range old {
		if m.ctx.Err() != nil {
			return
		}
		_ = os.RemoveAll(dir)
		_ = os.Remove(filepath.Dir(dir)) // with the last one
	}
	m.files()
}

// A sink is where the download of a blob writes.
type sink struct {
	d       *data
	evictor *evictor
}

// WriteAt is evictor.writeAt. Errors: fetch.ErrNoRoom; those of the local disk.
func (s sink) WriteAt(p []byte, off int64) (int, error) {
	n, err := s.evictor.writeAt(s.d.stored.written, p, off, s.inUse)
	if isFull(err) {
		s.evictor.log.Warn("no room for the image cache", "dir", s.evictor.dir, "err", err)
		return n, fetch.ErrNoRoom
	}
	return n, localError("write", err)
}

// Reserve makes room for n bytes that are to be written. Errors: fetch.ErrNoRoom.
func (s sink) Reserve(n int64) error {
	e := s.evictor
	if e.usage.fits(n) {
		return nil
	}
	if e.trim(n); e.usage.fits(n) || s.inUse() && e.abandonFor(n) && e.usage.fits(n) {
		return nil
	}
	return fetch.ErrNoRoom
}

// inUse reports whether the blob is open.
func (s sink) inUse() bool { return s.d.item.open(s.d) }

// Complete notes that a chunk can be read.
func (s sink) Complete(chunk int64) { s.d.stored.add(chunk) }

// Changed makes the committer look.
func (s sink) Changed() { s.d.notifyCommitter() }
