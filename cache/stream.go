// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// streams are the downloads of blobs whose size is not known before they end.
type streams struct {
	mu      sync.Mutex // guards the field below
	running map[Key]*streaming
}

type streaming struct {
	done chan struct{} // closed when err is valid
	err  error
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
		if src.image.Size = it.knownSize(); src.image.Size >= 0 {
			defer it.release()
			return it.join(ctx, src)
		}
		it.release() // removed as soon as it was here: once more
	}
}

// awaitStream waits for the download of a blob. Errors: its; ctx's.
func (c *Cache) awaitStream(ctx context.Context, key Key, src source) error {
	s, err := c.stream(key, src)
	if err != nil {
		return err
	}
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stream joins the download of a blob, or starts it.
func (c *Cache) stream(key Key, src source) (*streaming, error) {
	c.single.mu.Lock()
	defer c.single.mu.Unlock()
	if s := c.single.running[key]; s != nil {
		return s, nil
	}
	s := &streaming{done: make(chan struct{})}
	run := func() {
		s.err = backends.Guard(c.opts.Log, func() error { return c.download(key, src) })
		c.single.mu.Lock()
		delete(c.single.running, key)
		c.single.mu.Unlock()
		close(s.done)
	}
	if !c.spawn(run) {
		return nil, ErrClosed
	}
	if c.single.running == nil {
		c.single.running = map[Key]*streaming{}
	}
	c.single.running[key] = s
	return s, nil
}

// download fetches a whole blob, checks it and puts it in its place.
func (c *Cache) download(key Key, src source) error {
	it, err := c.take(c.ctx, key)
	if err != nil {
		return err
	}
	defer it.release()
	if it.knownSize() >= 0 {
		return nil // came in while we waited
	}
	it.mu.Lock()
	err = it.strikes.refusal(src.client)
	it.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		err = it.downloadOnce(src)
		if !errors.Is(err, backends.ErrCorrupt) {
			return err
		}
		if _, again := it.strike(err, []source{src}); !again {
			return err
		}
	}
}

func (it *item) downloadOnce(src source) (err error) {
	dir := it.cache.dir
	if err := dir.room(it.key); err != nil {
		return localError("create", err)
	}
	path := dir.stream(it.key)
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
	if err := it.receiveAll(f, src); err != nil {
		return err
	}
	if err := hashFile(it.cache.ctx, f, it.digestOf(src)); err != nil {
		return err
	}
	return localError("store", it.store(f, path, it.digestOf(src)))
}

// receiveAll writes the whole image to f. A body that breaks off begins anew:
// without a size nothing tells whether the rest would fit.
func (it *item) receiveAll(f *os.File, src source) error {
	c := it.cache
	for tries := 0; ; tries++ {
		n, err := it.receiveOnce(f, src)
		switch {
		case c.ctx.Err() != nil:
			return ErrClosed
		case err == nil:
			return localError("write", f.Truncate(n))
		case !passing(err) || tries >= maxRetries:
			return outward(gaveUp(err))
		}
		if sleep(c.ctx, retryMin<<tries) != nil {
			return ErrClosed
		}
	}
}

func (it *item) receiveOnce(f *os.File, src source) (int64, error) {
	c := it.cache
	t := newTicket(true)
	if err := src.lane.enter(c.ctx, t); err != nil {
		return 0, err
	}
	defer src.lane.leave(t)
	body, err := src.client.Open(c.ctx, src.image, 0, -1)
	if err != nil {
		return 0, &openError{err}
	}
	defer body.Close()
	w := &growing{cache: c, file: f}
	_, err = io.Copy(w, body)
	return w.n, err
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
		return 0, &openError{localError("write", err)}
	}
	g.n += int64(len(p))
	g.cache.grew(int64(len(p)))
	return len(p), nil
}

// store makes the checked file the blob. Call with busy held.
func (it *item) store(f *os.File, path, digest string) error {
	if err := fdatasync(f); err != nil {
		return err
	}
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
	it.wasVerified(info, true)
	return nil
}

// knownSize returns the size of a blob of which something is here, or -1.
func (it *item) knownSize() int64 {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.data != nil && it.data.phase.Load() != dead {
		return it.data.size
	}
	if it.rec.State == Remote {
		return -1
	}
	return it.rec.Size
}
