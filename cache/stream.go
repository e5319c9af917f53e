// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/fetch"
)

// streams are the downloads of blobs whose size is not known before they end.
type streams struct {
	mu      sync.Mutex // guards the field below
	running map[streamed]*streaming
}

// A streamed is a blob from one origin.
type streamed struct {
	key  Key
	from origin
}

type streaming struct {
	ctx     context.Context //nolint:containedctx // of a transfer that serves many callers; ends with the cache or Remove
	cancel  context.CancelFunc
	waiters int           // guarded by streams.mu
	done    chan struct{} // closed when err is valid
	err     error
}

// openStreamed is openData for a blob of unknown size: it waits for the one
// download of the whole.
func (c *Cache) openStreamed(ctx context.Context, key Key, src source) (*data, error) {
	for {
		if err := c.awaitStream(ctx, key, src); err != nil {
			return nil, err
		}
		it, err := c.take(ctx, key)
		if err != nil {
			return nil, err
		}
		d, err := it.joinWhole(ctx, src)
		it.release()
		if d != nil || err != nil {
			return d, err
		}
		// removed as soon as it was here: once more
	}
}

// awaitStream waits for the download of a blob. Errors: its; ctx's.
func (c *Cache) awaitStream(ctx context.Context, key Key, src source) error {
	s, err := c.stream(key, src)
	if err != nil {
		return err
	}
	defer func() {
		c.single.mu.Lock()
		defer c.single.mu.Unlock()
		s.waiters--
	}()
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stream joins the download of a blob, or starts it.
func (c *Cache) stream(key Key, src source) (*streaming, error) {
	which := streamed{key, originOf(src)}
	c.single.mu.Lock()
	defer c.single.mu.Unlock()
	if s := c.single.running[which]; s != nil {
		s.waiters++
		return s, nil
	}
	s := &streaming{waiters: 1, done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	run := func() {
		s.err = backends.Guard(c.opts.Log, func() error { return c.download(s.ctx, key, src) })
		s.cancel()
		c.single.mu.Lock()
		delete(c.single.running, which)
		c.single.mu.Unlock()
		close(s.done)
	}
	if !c.spawn(run) {
		s.cancel()
		return nil, ErrClosed
	}
	if c.single.running == nil {
		c.single.running = map[streamed]*streaming{}
	}
	c.single.running[which] = s
	return s, nil
}

// cancel ends the downloads of a blob. It reports false, and ends none, if somebody
// waits for one.
func (s *streams) cancel(key Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for which, one := range s.running {
		if which.key == key && one.waiters > 0 {
			return false
		}
	}
	for which, one := range s.running {
		if which.key == key {
			one.cancel()
		}
	}
	return true
}

// download fetches a whole blob, checks it and puts it in its place. It is not in
// anybody's way while it fetches.
func (c *Cache) download(ctx context.Context, key Key, src source) error {
	from := originOf(src)
	path := c.dir.slot(key, from).stream()
	for {
		err := c.refusal(key, from)
		if err == nil {
			err = c.downloadOnce(ctx, path, key, src)
		}
		if ctx.Err() != nil {
			err = ErrClosed
		}
		if !errors.Is(err, backends.ErrCorrupt) {
			return err
		}
		it, taken := c.take(ctx, key)
		if taken != nil {
			return err
		}
		again := it.part(from).mismatched(err)
		it.release()
		if !again {
			return err
		}
	}
}

// refusal says why a blob is not fetched from there; nil if it is.
func (c *Cache) refusal(key Key, from origin) error {
	c.mu.Lock()
	var p *item
	if it := c.items[key]; it != nil {
		p = it.parts[from]
	}
	c.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mismatch.refusal()
}

func (c *Cache) downloadOnce(ctx context.Context, path string, key Key, src source) (err error) {
	if err := c.dir.room(key); err != nil {
		return localError("create", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, partMode)
	if err != nil {
		return localError("create", err)
	}
	defer func() {
		f.Close()
		if err != nil {
			err = errors.Join(err, localError("remove", ignoreMissing(os.Remove(path))))
		}
	}()
	if err := c.receiveAll(ctx, f, src); err != nil {
		return err
	}
	digest := blobDigest(key, src)
	if err := hashFile(ctx, f, digest); err != nil {
		return err
	}
	it, err := c.take(ctx, key)
	if err != nil {
		return err
	}
	defer it.release()
	return localError("store", it.store(f, path, digest))
}

// receiveAll writes the whole image to f.
func (c *Cache) receiveAll(ctx context.Context, f *os.File, src source) error {
	w := &growing{cache: c, file: f}
	if err := fetch.Whole(ctx, src, w, func() { w.n = 0 }); err != nil {
		return err
	}
	return localError("write", f.Truncate(w.n))
}

// A growing writes a file in order, evicting other blobs when there is no room.
type growing struct {
	cache *Cache
	file  *os.File
	n     int64
}

func (g *growing) Write(p []byte) (int, error) {
	if g.n%trimStep < int64(len(p)) && !g.cache.fits(trimStep) {
		g.cache.trim(trimStep)
	}
	_, err := g.file.WriteAt(p, g.n)
	if isFull(err) && g.cache.evictFor(int64(len(p)), true) {
		_, err = g.file.WriteAt(p, g.n)
	}
	if err != nil {
		return 0, localError("write", err)
	}
	g.n += int64(len(p))
	g.cache.grew(int64(len(p)))
	return len(p), nil
}

// store makes the checked file the blob. Call on the main item, with busy held.
func (it *item) store(f *os.File, path, digest string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if it.cache.here(it.key, info.Size()) {
		return os.Remove(path) // came in meanwhile
	}
	if err := fdatasync(f); err != nil {
		return err
	}
	it.closeIdle()
	return it.replace(path, info.Size(), nil, func() error {
		if err := f.Chmod(wholeMode); err != nil {
			return err
		}
		dir := it.cache.dir
		if err := os.Rename(path, dir.file(it.key)); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		verdict(dir, it.key, digest, info, it.cache.opts.Log)
		it.wasVerified(info)
		return nil
	})
}
