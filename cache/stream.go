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
	*opener

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

// open returns the data of a blob of unknown size with one more handle on it: it waits
// for the one download of the whole.
func (s *streams) open(ctx context.Context, key Key, src source) (*data, error) {
	for {
		if err := s.await(ctx, key, src); err != nil {
			return nil, err
		}
		f, err := s.table.take(ctx, key)
		if err != nil {
			return nil, err
		}
		d, err := opening{s.opener, f, src}.whole(ctx)
		f.release()
		if d != nil || err != nil {
			return d, err
		}
		// removed as soon as it was here: once more
	}
}

// await waits for the download of a blob. Errors: its; ctx's.
func (s *streams) await(ctx context.Context, key Key, src source) error {
	one, err := s.join(key, src)
	if err != nil {
		return err
	}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.waiters--
	}()
	select {
	case <-one.done:
		return one.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join joins the download of a blob, or starts it.
func (s *streams) join(key Key, src source) (*streaming, error) {
	which := streamed{key, src.origin()}
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.running[which]; one != nil {
		one.waiters++
		return one, nil
	}
	one := &streaming{waiters: 1, done: make(chan struct{})}
	one.ctx, one.cancel = context.WithCancel(s.ctx)
	run := func() {
		one.err = backends.Guard(s.log, func() error { return s.download(one.ctx, key, src) })
		one.cancel()
		s.mu.Lock()
		delete(s.running, which)
		s.mu.Unlock()
		close(one.done)
	}
	if !s.spawn(run) {
		one.cancel()
		return nil, ErrClosed
	}
	s.running[which] = one
	return one, nil
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

// cancelAll ends all downloads of unknown size and waits for them.
func (s *streams) cancelAll() {
	s.mu.Lock()
	var all []*streaming
	for _, one := range s.running {
		one.cancel()
		all = append(all, one)
	}
	s.mu.Unlock()
	for _, one := range all {
		<-one.done
	}
}

// download fetches a whole blob, checks it and puts it in its place. It holds no lock while
// it fetches.
func (s *streams) download(ctx context.Context, key Key, src source) error {
	from := src.origin()
	path := s.dir.slot(key, from).stream()
	for {
		err := s.refusal(key, from)
		if err == nil {
			err = s.downloadOnce(ctx, path, key, src)
		}
		if ctx.Err() != nil {
			err = ErrClosed
		}
		if !errors.Is(err, backends.ErrCorrupt) {
			return err
		}
		f, taken := s.table.take(ctx, key)
		if taken != nil {
			return err
		}
		again := f.makePart(from).mismatched(err)
		f.release()
		if !again {
			return err
		}
	}
}

// refusal says why a blob is not fetched from there; nil if it is.
func (s *streams) refusal(key Key, from origin) error {
	if f := s.table.get(key); f != nil {
		if p := f.part(from); p != nil {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.mismatch.refusal()
		}
	}
	return nil
}

func (s *streams) downloadOnce(ctx context.Context, path string, key Key, src source) (err error) {
	if err := s.dir.room(key); err != nil {
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
	if err := s.receiveAll(ctx, f, src); err != nil {
		return err
	}
	digest := src.digestOf(key)
	if err := s.dir.hashFile(ctx, f, digest); err != nil {
		return err
	}
	family, err := s.table.take(ctx, key)
	if err != nil {
		return err
	}
	defer family.release()
	return localError("store", family.store(f, path, digest))
}

// receiveAll writes the whole image to f.
func (s *streams) receiveAll(ctx context.Context, f *os.File, src source) error {
	w := &growing{evictor: s.evictor, file: f}
	if err := fetch.Whole(ctx, src, w, func() { w.n = 0 }); err != nil {
		return err
	}
	return localError("write", f.Truncate(w.n))
}

// A growing writes a file in order, evicting other blobs when there is no room.
type growing struct {
	evictor *evictor
	file    *os.File
	n       int64
}

func (g *growing) Write(p []byte) (int, error) {
	if g.n%trimStep < int64(len(p)) && !g.evictor.usage.fits(trimStep) {
		g.evictor.trim(trimStep)
	}
	if _, err := g.evictor.writeAt(g.file, p, g.n, func() bool { return true }); err != nil {
		return 0, localError("write", err)
	}
	g.n += int64(len(p))
	return len(p), nil
}

// store makes the checked file the blob. Call with the lock held.
func (f *family) store(file *os.File, path, digest string) error {
	it := f.main
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if f.here(info.Size()) {
		return os.Remove(path) // came in meanwhile
	}
	if err := fdatasync(file); err != nil {
		return err
	}
	f.closeIdle()
	return f.replace(path, info.Size(), nil, func() error {
		if err := file.Chmod(wholeMode); err != nil {
			return err
		}
		if err := os.Rename(path, it.dir.file(it.key)); err != nil {
			return err
		}
		info, err := file.Stat()
		if err != nil {
			return err
		}
		verdict(it.dir, it.key, digest, info, it.log)
		it.arrived(info)
		return nil
	})
}
