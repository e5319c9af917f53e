// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
)

// An opener opens the files of blobs.
type opener struct {
	*common
	table   *table
	evictor *evictor
	verity  *verity
	refill  func(Key, source) // downloads a blob without a reader
}

// An opening is the opening of a blob that may come from src. Its methods are called
// with the family's lock held.
type opening struct {
	*opener
	family *family
	src    source
}

// digest returns what the blob must have, "" if there is none.
func (o opening) digest() string { return o.src.digestOf(o.family.main.key) }

// whole returns the data of the whole blob with one more handle on it, opening it if
// need be; nil if it is not here. Errors: ctx's; those of the local disk.
func (o opening) whole(ctx context.Context) (*data, error) {
	it := o.family.main
	it.live()
	if d := it.enter(); d != nil {
		return d, nil
	}
	if d := o.resume(); d != nil {
		return d, nil
	}
	d, err := o.openWhole(ctx)
	if d == nil && err == nil {
		d, err = o.openShared(ctx)
	}
	if d != nil {
		it.opened(d)
	}
	return d, err
}

// openWhole opens the whole blob, nil if there is none that can be trusted.
// Errors: ctx's; those of the local disk.
func (o opening) openWhole(ctx context.Context) (*data, error) {
	it, digest := o.family.main, o.digest()
	f, info, err := openRegular(o.dir.file(it.key), os.O_RDONLY)
	if err != nil {
		return nil, o.unusable(err)
	}
	if o.src.image.Size >= 0 && o.src.image.Size != info.Size() && digest == "" {
		f.Close()
		return nil, o.unusable(errNotOurs)
	}
	if !o.trusts(f, info) {
		err = o.dir.hashFile(ctx, f, digest)
		if errors.Is(err, backends.ErrCorrupt) || isDamage(err) {
			f.Close()
			o.log.Warn("a blob on the disk is damaged", "key", it.key, "err", err)
			return nil, o.unusable(errNotOurs)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		verdict(o.dir, it.key, digest, info, o.log)
		it.mu.Lock()
		it.verified(info)
		it.mu.Unlock()
	}
	if o.opts.FSVerity && !o.family.guarded {
		o.family.guarded = o.spawn(func() { o.verity.guard(it.key) })
	}
	return newWhole(it, f, info, digest), nil
}

// newWhole returns the data of a blob that is whole and verified in f.
func newWhole(it *item, f *os.File, info os.FileInfo, digest string) *data {
	d := newData(it, info.Size(), digest)
	d.stored.file.Store(f)
	d.info = info
	d.phase.Store(whole)
	close(d.settled)
	return d
}

// unusable removes a file that must not be used, and returns nil, as if there were none;
// errors of the disk stay.
func (o opening) unusable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errNotOurs):
		return localError("remove", o.family.main.slot().drop())
	}
	return localError("open", err)
}

// trusts reports whether a file is the one whose digest matched before. A file that was
// written to has another time, and a file that the kernel guards cannot be written to.
func (o opening) trusts(f *os.File, info os.FileInfo) bool {
	it := o.family.main
	it.mu.Lock()
	rec := it.rec
	it.mu.Unlock()
	if !rec.Verified.IsZero() && rec.ModTime.Equal(info.ModTime()) && rec.Size == info.Size() {
		return true
	}
	m, err := readMap(o.dir.mapOf(it.key))
	return err == nil && m.Name == string(it.key) && m.Size == info.Size() &&
		(m.Verified == info.ModTime().UnixNano() || guarded(m, f))
}

// resume opens the blob that is idle, if its name still leads there. Else the idle
// one is closed, and resume returns nil. Call while data is nil.
func (o opening) resume() *data {
	it := o.family.main
	d := o.table.idle.take(it)
	if d == nil {
		return nil
	}
	defer d.leave() // as an idle one
	info, err := os.Lstat(d.stored.file.Load().Name())
	if err != nil || !unchanged(d.info, info) || d.check.digest != o.digest() ||
		o.src.image.Size >= 0 && o.src.image.Size != d.size {
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

// openShared opens the whole blob where a shared cache has it, nil if none has.
// Errors: ctx's.
func (o opening) openShared(ctx context.Context) (*data, error) {
	key, digest := o.family.main.key, o.digest()
	if newHasher(digest) == nil || strings.HasPrefix(digest, "md5:") {
		return nil, nil
	}
	for _, dir := range o.opts.Shared {
		f, info, err := layout(dir).shared(layout(dir).file(key))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			if err = o.believe(ctx, layout(dir), f, info); err != nil {
				f.Close()
			}
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			o.log.Warn("a blob of a shared cache is not used", "dir", dir, "key", key, "err", err)
			continue
		}
		d := newWhole(o.family.main, f, info, digest)
		d.shared = true
		return d, nil
	}
	return nil, nil
}

// believe makes sure that a shared file is the blob.
// Errors: backends.ErrCorrupt; ctx's; those of the disk.
func (o opening) believe(ctx context.Context, l layout, f *os.File, info os.FileInfo) error {
	it := o.family.main
	if l.notes(it.key, info) {
		return nil
	}
	it.mu.Lock()
	seen := it.vouched
	it.mu.Unlock()
	if seen != nil && unchanged(seen, info) {
		return nil
	}
	if err := l.hashFile(ctx, f, o.digest()); err != nil {
		return err
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	it.vouched = info
	return nil
}

// hint asks once which ranges a reader of the blob's head will want next, and fetches
// them while it reads on.
func hint(d *data) {
	hints := d.item.opts.Hints
	if hints == nil || d.hinted.Swap(true) {
		return
	}
	r := &hintReader{d: d, window: fetch.Window{Quiet: true}}
	d.item.spawn(func() {
		for _, r := range hints(d.ctx, r, d.size) {
			off := min(max(r.Off, 0), d.size)
			d.download.Prefetch(off, off+min(max(r.N, 0), d.size-off))
		}
	})
}

// A hintReader reads for Options.Hints only, also bytes that were not verified.
type hintReader struct {
	d      *data
	window fetch.Window
}

// ReadAtContext implements ReaderAtContext.
func (h *hintReader) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, eof, err := clip(p, off, h.d.size)
	if err != nil {
		return 0, err
	}
	n := 0
	if f, ok := h.d.file(); ok {
		n, err = readFile(f, p, off)
	} else {
		n, err = h.d.read(ctx, p, off, &h.window)
	}
	return n, cmp.Or(err, eof)
}

// part returns the data of what came from one origin, with one more handle on it,
// opening it if need be. Errors: backends.ErrCorrupt; those of the local disk.
func (o opening) part() (*data, error) {
	it := o.family.makePart(o.src.origin())
	it.mu.Lock()
	err := it.mismatch.refusal()
	it.mu.Unlock()
	if err == nil {
		err = checkSize(o.src.image.Size, o.digest())
	}
	if err != nil {
		return nil, err
	}
	it.live()
	d := it.enter()
	if d == nil {
		if d, err = o.start(it); err != nil {
			return nil, err
		}
	}
	d.offer(o.src)
	return d, nil
}

// start opens what is on the disk of a part, or begins anew, with one handle, and
// starts its committer. Call while data is nil. Errors: those of the local disk.
func (o opening) start(it *item) (*data, error) {
	d, err := o.openPart(it)
	if isFull(err) && o.evictor.evictFor(chunks.Size, true) {
		d, err = o.openPart(it)
	}
	if err != nil {
		return nil, err
	}
	d.users++ // the committer
	it.opened(d)
	if !o.spawn((&committer{data: d, verity: o.verity, refill: o.refill}).run) {
		d.leave()
		it.exit(d)
		return nil, ErrClosed
	}
	return d, nil
}

// openPart opens the blob under way, or begins anew.
func (o opening) openPart(it *item) (*data, error) {
	d := newData(it, o.src.image.Size, o.digest())
	n := chunks.Count(d.size)
	d.stored.have, d.stored.durable, d.check.served = chunks.NewSet(n), chunks.NewSet(n), it.servedOf(d.size)
	d.check.matched = make(chan struct{})
	d.download, d.made = o.newDownload(d), newImage(d)
	d.check.hash = newHasher(d.check.digest)
	if err := d.openSparse(); err != nil {
		d.cancel()
		d.stored.closeWriter()
		return nil, localError("create", err)
	}
	d.stored.recent = chunks.StartRecent(it.slot().recent(), bootID(), d.chunksOf(), d.stored.have)
	d.hinted.Store(d.stored.have.Len() > 0)
	return d, nil
}

// newDownload returns the download of a blob that is not whole.
func (o opening) newDownload(d *data) *fetch.Download {
	s := sink{d, o.evictor}
	return fetch.New(d.ctx, fetch.Options{
		Size: d.size, Have: d.stored.have, Sink: s, Log: o.log, Go: o.spawn,
		InUse:        s.inUse,
		NoBackground: o.opts.NoBackground, Streams: o.opts.Streams,
		Delay: o.opts.FillDelay, Patience: o.opts.Patience, Probe: func() { hint(d) },
	})
}

// openSparse opens the sparse file of d, with the length of the whole, and finds out which
// chunks are in it.
func (d *data) openSparse() error {
	at := d.item.slot()
	if err := d.item.dir.room(d.item.key); err != nil {
		return err
	}
	m, err := readMap(at.mapOf())
	if err != nil || m.File != d.chunksOf() || m.Verified != 0 {
		m = nil
	}
	recent, survived := readRecent(at.recent(), d.chunksOf())
	if m == nil && survived {
		m = &chunks.Map{Have: chunks.NewSet(chunks.Count(d.size))}
	}
	if d.stored.written, _, err = openRegular(at.part(), os.O_RDWR); err != nil || m == nil {
		d.stored.closeWriter()
		m = nil
		if err := at.drop(); err != nil {
			return err
		}
		d.stored.written, err = os.OpenFile(at.part(), os.O_RDWR|os.O_CREATE|os.O_EXCL, partMode)
		if err != nil {
			return err
		}
	}
	if err := d.stored.written.Truncate(d.size); err != nil {
		return errors.Join(err, ignoreMissing(os.Remove(at.part())))
	}
	// Readers get a descriptor that cannot write.
	f, _, err := openRegular(at.part(), os.O_RDONLY)
	if err != nil {
		return err
	}
	d.stored.file.Store(f)
	if m != nil {
		d.stored.recall(m, recent)
		if d.check.hash != nil && m.Hashed <= d.stored.have.FirstMissing(0, chunks.Count(d.size))*chunks.Size {
			d.check.hash.restore(m.HashState, m.Hashed)
		}
	}
	return nil
}
