// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A common is what all blobs of a cache have in common.
type common struct {
	workers
	dir        layout
	opts       Options
	usage      usage
	records    records
	watchers   watchers
	handedOver atomic.Bool // the directory belongs to another process, see HandOver
}

// workers are the goroutines of a cache.
type workers struct {
	ctx    context.Context //nolint:containedctx // of the transfers, which serve many callers; ends at Close
	cancel context.CancelFunc
	log    *slog.Logger
	wg     sync.WaitGroup // everything that spawn started

	mu     sync.Mutex // guards the field below
	closed bool
}

// spawn runs fn in a goroutine that close waits for. It reports false when the
// cache is closed already. A panic of fn ends fn alone: where others wait for its
// result, fn has a Guard inside.
func (w *workers) spawn(fn func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.wg.Go(func() {
		defer backends.Catch(w.log)
		fn()
	})
	return true
}

// close ends all goroutines and waits for them. It reports false if they were ended
// before.
func (w *workers) close() bool {
	w.mu.Lock()
	was := w.closed
	w.closed = true
	w.mu.Unlock()
	if was {
		return false
	}
	w.cancel()
	w.wg.Wait()
	return true
}

// watchers are called when the state of a blob changes.
type watchers struct {
	mu  sync.Mutex // guards the field below
	fns []func(Key, State)
}

func (w *watchers) add(fn func(Key, State)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fns = append(w.fns, fn)
}

func (w *watchers) announce(key Key, state State) {
	w.mu.Lock()
	fns := w.fns
	w.mu.Unlock()
	for _, fn := range fns {
		fn(key, state)
	}
}

// wake wakes the goroutine that waits for ch. It does not block.
func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

const (
	// trimStep is how much is written before the limits are looked at again.
	trimStep = 64 << 20
	// lookEvery is how often the limits are looked at because blobs are closed, as long
	// as they hold: somebody else may fill the disk.
	lookEvery = time.Second
	// metadataShare says which part of the limit metadata may take (one eighth) before
	// blobs are evicted for it.
	metadataShare = 8
)

// A usage knows how much of the disk the cache takes, and how much it may take.
type usage struct {
	dir     string
	most    int64 // bytes that the cache may take; 0: no limit
	reserve int64 // bytes of the disk to leave free

	blobs   atomic.Int64  // bytes that all blobs take on the disk, as last measured
	meta    atomic.Int64  // bytes that metadata takes, as last measured
	growth  atomic.Int64  // bytes written since the limits were looked at
	crowded atomic.Bool   // the limits did not hold when they were looked at last
	looked  atomic.Int64  // when they were looked at because a blob was closed, in Unix nanoseconds
	full    chan struct{} // wakes the janitor to evict
}

// over reports whether need more bytes would be too many.
func (u *usage) over(need int64) bool {
	return u.most > 0 && u.blobs.Load()+u.meta.Load()+need > u.most || !u.fits(need)
}

// fits reports whether the disk has room for n more bytes.
func (u *usage) fits(n int64) bool {
	free, _, ok := disk.Space(u.dir)
	return !ok || free-n >= u.reserve
}

// muchMetadata reports whether metadata takes more than its share.
func (u *usage) muchMetadata() bool { return u.most > 0 && u.meta.Load() > u.most/metadataShare }

// grew notes that n bytes were written; now and then the limits are looked at.
func (u *usage) grew(n int64) {
	step := int64(trimStep)
	if u.most > 0 {
		step = min(step, u.most/8)
	}
	if u.growth.Add(n) < step {
		return
	}
	u.growth.Store(0)
	wake(u.full)
}

// closed notes that a handle on a blob was closed, which may let it be evicted.
func (u *usage) closed() {
	now, last := time.Now().UnixNano(), u.looked.Load()
	if u.crowded.Load() || now-last >= int64(lookEvery) && u.looked.CompareAndSwap(last, now) {
		wake(u.full)
	}
}

// records are what the index is to remember of the blobs.
type records struct {
	index Index // nil: nothing is remembered
	log   *slog.Logger
	tidy  chan struct{} // wakes the janitor to save them

	mu      sync.Mutex   // guards the fields below
	stale   map[Key]bool // to save
	dropped map[Key]bool // to remove
}

// load reads the index. What cannot be read is not remembered.
func (r *records) load() map[Key]Record {
	known := map[Key]Record{}
	if r.index == nil {
		return known
	}
	for rec, err := range r.index.Load() {
		if err != nil {
			r.log.Warn("cannot read the cache's index", "err", err)
			break
		}
		if rec.Key.valid() {
			known[rec.Key] = rec
		}
	}
	return known
}

// touch notes that the record of a blob changed.
func (r *records) touch(key Key) {
	if r.index == nil {
		return
	}
	r.mu.Lock()
	known := r.stale[key]
	r.stale[key] = true
	r.mu.Unlock()
	if !known {
		wake(r.tidy)
	}
}

// save writes the changed records as get gives them; ok is false if nothing is here to
// be remembered. Those that could not be saved are not tried again before they change:
// the files tell all that matters.
func (r *records) save(get func(Key) (rec Record, ok bool)) error {
	r.mu.Lock()
	stale, dropped := r.stale, r.dropped
	r.stale, r.dropped = map[Key]bool{}, map[Key]bool{}
	r.mu.Unlock()
	if r.index == nil {
		return nil
	}
	var changed []Record
	for key := range stale {
		if rec, ok := get(key); ok {
			changed = append(changed, rec)
		} else {
			dropped[key] = true
		}
	}
	var gone []string
	for key := range dropped {
		gone = append(gone, string(key))
	}
	var errs []error
	if len(changed) > 0 {
		errs = append(errs, r.index.Save(changed...))
	}
	if len(gone) > 0 {
		errs = append(errs, r.index.Remove(gone...))
	}
	return errors.Join(errs...)
}

// Errors of this package; those of backends pass through.
var (
	// ErrInUse: a blob is open or pinned.
	ErrInUse = errors.New("in use")
	// ErrClosed: the cache or the handle was closed.
	ErrClosed = fetch.ErrClosed
)

// localError turns errors of the disk into those of this package: the errno stays, and a
// missing file of our own does not read as "no such image".
func localError(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("cache: %s: %w", op, errno)
	}
	return fmt.Errorf("cache: %s: %v", op, err)
}

// outward turns fetch.ErrNoRoom, which only this package knows, into ENOSPC.
func outward(err error) error {
	if errors.Is(err, fetch.ErrNoRoom) {
		return fmt.Errorf("cache: %w", syscall.ENOSPC)
	}
	return err
}

// isFull reports whether an error of the local disk says that there is no room.
func isFull(err error) bool {
	errno, ok := backends.LocalErrno(err)
	return ok && (errno == syscall.ENOSPC || errno == syscall.EDQUOT)
}

// isDamage reports whether an error of the local disk says that bytes are lost.
func isDamage(err error) bool {
	errno, ok := backends.LocalErrno(err)
	return ok && errno == syscall.EIO
}
