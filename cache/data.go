// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
	"github.com/sregfs/sregfs/cache/layers"
)

// A data is one blob while it is open or being fetched: all its handles share it. It is made of the bytes that are here, the download that brings the
// others, and the check whether they are right. One committer makes what comes in
// durable, verifies it and puts it in its place.
type data struct {
	item   *item
	size   int64
	info   os.FileInfo // of the file, if it was whole when it was opened; else nil
	shared bool        // the file is another cache's

	stored   stored
	check    check
	download *fetch.Download // nil if it was whole when it was opened
	made     *layers.Image   // if its bytes are made here; else nil
	hinted   atomic.Bool     // the hints were asked for, or are not needed

	ctx       context.Context //nolint:containedctx // of the download, which serves many callers; ends with the cache or when it is in vain
	cancel    context.CancelFunc
	changed   chan struct{} // wakes the committer
	committed chan struct{} // closed when the committer has ended
	settled   chan struct{} // closed when whole or dead
	phase     atomic.Int32  // partial, whole or dead

	mu      sync.Mutex // guards the fields below
	users   int        // handles and the committer: the last one closes the files
	failure error      // why it is dead
}

// The phases of a data. It goes from partial to one of the others, once.
const (
	partial int32 = iota
	whole
	dead
)

func newData(it *item, size int64, digest string) *data {
	d := &data{item: it, size: size, settled: make(chan struct{}), changed: make(chan struct{}, 1), committed: make(chan struct{})}
	d.stored.size, d.check.digest = size, digest
	d.ctx, d.cancel = context.WithCancel(it.ctx)
	return d
}

// has reports whether the bytes [off, end) can be read from the file now. It takes no
// lock, so it may miss what comes in meanwhile.
func (d *data) has(off, end int64) bool {
	return d.phase.Load() == whole || d.stored.have.All(chunks.Of(off), chunks.Count(end))
}

// file returns the file of a blob that is whole and verified.
func (d *data) file() (f *os.File, ok bool) {
	if d.phase.Load() != whole {
		return nil, false
	}
	return d.stored.file.Load(), true
}

// state tells how much is here.
func (d *data) state() State {
	switch {
	case d.phase.Load() == whole:
		return Cached
	case d.stored.have.Len() > 0:
		return Partial
	}
	return Remote
}

// present returns how many bytes are here.
func (d *data) present() int64 {
	if d.phase.Load() == whole {
		return d.size
	}
	return d.stored.have.Bytes(d.size)
}

// notifyCommitter makes the committer look again. It does not block.
func (d *data) notifyCommitter() { wake(d.changed) }

// kill ends the blob with err for all its handles, and reports whether it was still
// partial. The caller closes settled.
func (d *data) kill(err error) bool {
	d.mu.Lock()
	if d.failure == nil {
		d.failure = err
	}
	was := d.phase.Swap(dead)
	err = d.failure
	d.mu.Unlock()
	if d.download != nil {
		d.download.End(err)
	}
	d.cancel()
	return was == partial
}

// deadErr is why the blob is dead, nil if it is not.
func (d *data) deadErr() error {
	if d.phase.Load() != dead {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure
}

// leave gives up one use; the last one closes the files.
func (d *data) leave() {
	d.mu.Lock()
	d.users--
	last := d.users == 0
	d.mu.Unlock()
	if !last {
		return
	}
	d.cancel()
	d.stored.close()
	if d.made != nil {
		d.made.Close()
	}
}

// turnWhole ends the partial phase, if it has not ended.
func (d *data) turnWhole() {
	d.mu.Lock()
	turned := d.phase.CompareAndSwap(partial, whole)
	d.mu.Unlock()
	if turned {
		d.download.End(nil)
		d.check.served.verified.Store(true)
		close(d.settled)
	}
}

// chunksOf returns how the map and the list of recent chunks identify d.
func (d *data) chunksOf() chunks.File {
	return chunks.File{Name: string(d.item.id()), Digest: d.check.digest, Size: d.size}
}

// sourceNames returns where the blob comes from, for people.
func (d *data) sourceNames() []string {
	var names []string
	for _, src := range d.download.Sources() {
		names = append(names, sourceOf(src).String())
	}
	return names
}

// Lazy means that bytes are given out before the whole blob is here to be compared with
// its digest. But no set of readers gets all bytes of a blob that way: a small blob is
// given out once it is verified, and of a larger one the last chunk that no reader had
// yet. So no copy of a wrong image succeeds, whichever reader read which part of it, and
// whatever the kernel still had. With Strict nothing is given out before.

// read fills p, and fetches what is missing of it.
func (d *data) read(ctx context.Context, p []byte, off int64, w *fetch.Window) (int, error) {
	end := off + int64(len(p))
	err := d.download.Await(ctx, off, end, w)
	if errors.Is(err, fetch.ErrNoRoom) {
		return d.readThrough(ctx, p, off)
	}
	if err != nil {
		return 0, err
	}
	if d.gives(off, end) {
		if err := d.awaitEnd(ctx, d.check.match); err != nil && !errors.Is(err, fetch.ErrNoRoom) {
			return 0, outward(err)
		}
	}
	if err := d.deadErr(); err != nil {
		return 0, outward(err)
	}
	return readFile(d.stored.file.Load(), p, off)
}

// readThrough fills p from the file, or through memory as the disk is full.
func (d *data) readThrough(ctx context.Context, p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		part := p[done:min(int64(len(p)), at-at%fetch.PieceSize+fetch.PieceSize-off)]
		n, err := len(part), error(nil)
		if d.has(at, at+int64(n)) {
			n, err = readFile(d.stored.file.Load(), part, at)
		} else {
			err = d.download.ReadThrough(ctx, part, at)
			if err != nil && d.phase.Load() == whole {
				continue // it came in otherwise
			}
			err = cmp.Or(d.deadErr(), outward(err))
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// gives notes that a reader is to get [off, end), and reports whether the digest must
// match first.
func (d *data) gives(off, end int64) (verify bool) {
	// Not "while it is partial": it may have turned out wrong since they came in.
	return d.check.serve(off, end) && d.phase.Load() != whole
}

// strict reports whether nothing may be given out yet.
func (d *data) strict() bool {
	if d.phase.Load() != partial {
		return false
	}
	opts := &d.item.opts
	return opts.Verify == Strict || d.check.digest != "" && d.size <= opts.StrictSize
}

// awaitVerified fetches all that is missing and returns when the blob is whole.
// Errors: those of await; backends.ErrCorrupt.
func (d *data) awaitVerified(ctx context.Context) error {
	return d.awaitEnd(ctx, func() <-chan struct{} { return d.settled })
}

// awaitEnd fetches all that is missing and returns when the channel that end
// gives then is closed, or the blob is whole or dead.
func (d *data) awaitEnd(ctx context.Context, end func() <-chan struct{}) error {
	for {
		if err := d.download.All(ctx); err != nil {
			return err
		}
		again := time.NewTimer(d.download.Patience())
		select {
		case <-end():
			again.Stop()
			return d.deadErr()
		case <-d.settled:
			again.Stop()
			return d.deadErr()
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-d.item.ctx.Done():
			again.Stop()
			return ErrClosed
		case <-again.C: // the disk may have lost what it had: then it is fetched again
		}
	}
}

const (
	checkPatience = 3 * time.Second // as long as a look-up waits for a registry whose last answer is known
	checkAge      = time.Second
)

// unchecked returns the first byte that is not here; ok is false if there is none, or
// bytes came in within checkAge.
func (d *data) unchecked() (off int64, ok bool) {
	if d.phase.Load() != partial || d.download.Complete() {
		return 0, false
	}
	_, heard := d.download.Received()
	return d.stored.have.FirstMissing(0, chunks.Count(d.size)) * chunks.Size, time.Since(heard) >= checkAge
}

// wholly is Wait.
func (d *data) wholly(ctx context.Context, progress func(have int64)) error {
	if d.download != nil {
		tick := func() { progress(d.present()) }
		if err := d.download.Fill(ctx, d.settled, tick); err != nil {
			return outward(err)
		}
	}
	progress(d.present())
	return d.deadErr()
}

// clip returns what of p can be read from off of a blob of size bytes, with io.EOF if
// that is not all.
func clip(p []byte, off, size int64) (_ []byte, eof, err error) {
	switch {
	case off < 0:
		return nil, nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	case off >= size:
		return nil, nil, io.EOF
	case int64(len(p)) > size-off:
		return p[:size-off], io.EOF, nil
	}
	return p, nil, nil
}

func readFile(f *os.File, p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		return n, io.ErrUnexpectedEOF
	}
	return n, localError("read", err)
}
