// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/fetch"
)

// A Blob is one handle on an image's bytes. Its methods may be called from many
// goroutines at once.
type Blob struct {
	local *os.File // a file outside the cache; nil otherwise
	size  int64

	cache   *Cache
	key     Key
	src     source
	window  fetch.Window
	data    atomic.Pointer[data]
	touched atomic.Bool // bytes were given out
	closed  atomic.Bool
	swap    sync.Mutex // held while data is replaced or closed
}

// Blob opens img for reading, joining a download under way. It makes no
// request itself, except where img.Size is unknown: then it waits until the
// whole image is here. Images that the client holds as local files are read
// where they lie, and neither copied nor counted.
//
// A blob that is whole on the disk but was never verified here, or has another
// time than then, is read once before Blob returns.
//
// Errors: those of backends.Backend.Open; ENOSPC and its like; ErrClosed;
// backends.ErrCorrupt, without a request, for ten minutes after two downloads in
// a row did not match the digest.
func (c *Cache) Blob(ctx context.Context, client *backends.Client, img backends.Image) (*Blob, error) {
	if err := backends.CheckSize(img.Size); err != nil {
		return nil, err // the catalogue may have it from an older release
	}
	if client.Caps().Has(backends.CanOpenFile) {
		f, err := client.OpenFile(ctx, img)
		if err == nil {
			return localBlob(f)
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			return nil, err
		}
	}
	client.Scheduler().Join(&c.traffic)
	src := source{client: client, image: img}
	key := KeyOf(client.Name(), img)
	d, err := c.openData(ctx, key, src)
	if err != nil {
		return nil, err
	}
	b := &Blob{size: d.size, cache: c, key: key, src: src}
	b.data.Store(d)
	return b, nil
}

func localBlob(f *os.File) (*Blob, error) {
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, localError("open", err)
	}
	return &Blob{local: f, size: info.Size()}, nil
}

// openData returns the data of a blob with one more handle on it: the whole and
// verified one, or what is here of it from the origin of src.
func (c *Cache) openData(ctx context.Context, key Key, src source) (*data, error) {
	f, err := c.table.take(ctx, key)
	if err != nil {
		return nil, err
	}
	o := opening{&c.opener, f, src}
	d, err := o.whole(ctx)
	if d == nil && err == nil && src.image.Size < 0 {
		f.release()
		return c.streams.open(ctx, key, src)
	}
	defer f.release()
	if d != nil || err != nil {
		return d, err
	}
	return o.part()
}

// refill downloads a blob without a reader.
func (c *Cache) refill(key Key, src source) {
	d, err := c.openData(c.ctx, key, src)
	if err != nil {
		return
	}
	if d.download != nil {
		d.download.StartBackground()
	}
	d.item.exit(d)
}

// Key returns the blob's key, "" for a local file outside the cache.
func (b *Blob) Key() Key { return b.key }

// Epoch tells which download the blob's bytes are of: what was read in one must not
// be combined with what is read in another, unless they agree.
func (b *Blob) Epoch() Epoch {
	if b.local != nil {
		return Epoch{}
	}
	return Epoch{b.data.Load().check.served}
}

// Size returns the image's size in bytes.
func (b *Blob) Size() int64 { return b.size }

// State tells how much is here now.
func (b *Blob) State() State {
	if b.local != nil {
		return Cached
	}
	return b.data.Load().state()
}

// ReadAtContext reads as io.ReaderAt does, and waits for bytes that are not
// here. When ctx ends only this wait ends, never the download.
//
// Errors: io.EOF as io.ReaderAt; ctx's; those of backends.Backend.Open;
// of those that may pass each only when nothing came in for the client's Timeout;
// context.DeadlineExceeded when nothing came in for Options.Patience;
// backends.ErrCorrupt once the digest did not match; ErrClosed.
func (b *Blob) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if b.closed.Load() {
		return 0, ErrClosed
	}
	p, eof, err := clip(p, off, b.size)
	if err != nil {
		return 0, err
	}
	n, err := b.read(ctx, p, off)
	return n, cmp.Or(err, eof)
}

// read fills p, which lies within the blob.
func (b *Blob) read(ctx context.Context, p []byte, off int64) (int, error) {
	if b.local != nil {
		return readFile(b.local, p, off)
	}
	d := b.data.Load()
	if f, ok := d.file(); ok {
		return readFile(f, p, off)
	}
	if d.strict() {
		d, err := b.awaitVerified(ctx, d)
		if err == nil {
			return readFile(d.stored.file.Load(), p, off)
		}
		if !errors.Is(err, fetch.ErrNoRoom) {
			return 0, outward(err)
		}
	}
	if d = b.alive(ctx, d, true); d.phase.Load() == dead {
		return 0, d.deadErr()
	}
	if !b.touched.Load() {
		b.touched.Store(true)
	}
	return d.read(ctx, p, off, &b.window)
}

// alive returns the data to read from: where the first download turned out bad
// before this handle gave anything out, that is the second one. shared says that
// what other handles gave out counts too: the kernel shares pages between them.
func (b *Blob) alive(ctx context.Context, d *data, shared bool) *data {
	if d.phase.Load() != dead || b.touched.Load() || !errors.Is(d.deadErr(), backends.ErrCorrupt) ||
		shared && d.check.served.some() {
		return d
	}
	src := b.src
	src.image.Size = d.size
	fresh, err := b.cache.openData(ctx, b.key, src)
	if err != nil {
		return d
	}
	b.swap.Lock()
	defer b.swap.Unlock()
	if b.closed.Load() || fresh.size != b.size || b.data.Load() != d {
		fresh.item.exit(fresh)
		return b.data.Load()
	}
	b.data.Store(fresh)
	d.item.exit(d)
	return fresh
}

// ReadAt is ReadAtContext without end.
func (b *Blob) ReadAt(p []byte, off int64) (int, error) {
	return b.ReadAtContext(context.Background(), p, off)
}

// Check fetches the first byte that is not here, unless something came in just now:
// a registry that has another version by now says so before anybody reads. It keeps
// nobody from reading what is here: other errors than that are for reads to give.
//
// Errors: backends.ErrChanged, fs.ErrNotExist.
func (b *Blob) Check(ctx context.Context) error {
	if b.local != nil {
		return nil
	}
	d := b.data.Load()
	off, ok := d.unchecked()
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkPatience)
	defer cancel()
	if err := outward(d.download.AwaitByte(ctx, off)); errors.Is(err, backends.ErrChanged) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Has reports whether a read of n bytes at off would be served from the disk at
// once, without being compared with the digest first. If so, they count as given
// out: ask only to read them then.
func (b *Blob) Has(off, n int64) bool {
	if b.local != nil {
		return true
	}
	d := b.data.Load()
	off = min(max(off, 0), d.size)
	end := min(off+max(n, 0), d.size)
	if d.strict() || d.phase.Load() == dead || !d.has(off, end) {
		return false
	}
	return d.phase.Load() == whole || !d.gives(off, end)
}

// File returns the file behind the blob, for reading only, if it is whole and
// verified (or a local file): the kernel may read it without us. It belongs to
// the blob and is valid until Close.
func (b *Blob) File() (*os.File, bool) {
	if b.local != nil {
		return b.local, true
	}
	return b.data.Load().file()
}

// RawFile returns the sparse or whole file behind the blob, for zero-copy reads
// of ranges for which Has is true. It belongs to the blob and is valid until
// Close.
func (b *Blob) RawFile() *os.File {
	if b.local != nil {
		return b.local
	}
	b.touched.Store(true)
	return b.data.Load().stored.file.Load()
}

// Wait fetches all that is missing and returns when the blob is whole and
// verified. progress, if not nil, is called with the bytes present so far.
//
// Errors: those of ReadAtContext.
func (b *Blob) Wait(ctx context.Context, progress func(have int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	if b.local != nil {
		progress(b.size)
		return nil
	}
	for {
		if b.closed.Load() {
			return ErrClosed
		}
		d := b.data.Load()
		err := d.wholly(ctx, progress)
		if err == nil || b.alive(ctx, d, false) == d {
			return err
		}
	}
}

// Close releases the handle. What was fetched stays; background filling that
// has begun goes on as long as the cache is open. A second Close does nothing.
func (b *Blob) Close() error {
	b.swap.Lock()
	defer b.swap.Unlock()
	if b.closed.Swap(true) {
		return nil
	}
	if b.local != nil {
		return localError("close", b.local.Close())
	}
	d := b.data.Load()
	d.item.exit(d)
	return nil
}

// awaitVerified returns the verified data, which can be that of a second
// download where the first was bad and nothing of it was given out.
func (b *Blob) awaitVerified(ctx context.Context, d *data) (*data, error) {
	for {
		err := d.awaitVerified(ctx)
		if err == nil {
			return d, nil
		}
		if errors.Is(err, fetch.ErrNoRoom) && d.item.opts.Verify == Strict {
			return nil, outward(err) // unverified bytes through memory are no way out
		}
		fresh := b.alive(ctx, d, true)
		if fresh == d {
			return nil, err
		}
		d = fresh
	}
}
