// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sregfs/sregfs/backends"
)

// verifyStep is how much Verify reads between two calls of progress.
const verifyStep = 8 << 20

var errNotWhole = fmt.Errorf("%w: the blob is not whole here", fs.ErrInvalid)

// Verify reads a whole blob again, from the disk and not from memory, whatever
// was believed of it, and compares its digest. A wrong or unreadable one is
// removed, watchers are told, and whoever has it open gets the error from then
// on, except through the kernel (Blob.File), which knows only of the file. Of a
// blob without a digest it checks that it can be read. The blob can be opened and
// read meanwhile. progress, if not nil, is called with the bytes read so far.
//
// Errors: backends.ErrCorrupt; fs.ErrInvalid if the blob is not whole, or was
// removed meanwhile; ctx's; those of the local disk.
func (c *Cache) Verify(ctx context.Context, key Key, progress func(done, total int64)) error {
	if !key.valid() {
		return errNotWhole
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	for {
		s, err := c.suspect(ctx, key)
		if err != nil {
			return err
		}
		found := s.read(ctx, progress)
		s.file.Close()
		if found != nil && !errors.Is(found, backends.ErrCorrupt) {
			return found
		}
		if again, err := c.judge(ctx, s, found); !again {
			return err
		}
	}
}

// A suspect is a whole blob that is being read again.
type suspect struct {
	key    Key
	digest string
	file   *os.File
	info   os.FileInfo
}

// suspect opens the file of a whole blob.
func (c *Cache) suspect(ctx context.Context, key Key) (*suspect, error) {
	it, err := c.take(ctx, key)
	if err != nil {
		return nil, err
	}
	defer it.release()
	f, info, err := openRegular(c.dir.file(key), os.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errNotWhole
	case errors.Is(err, errNotOurs):
		return nil, it.condemn(fmt.Errorf("%w: %v", backends.ErrCorrupt, err))
	case err != nil:
		return nil, localError("verify", err)
	}
	s := &suspect{key: key, digest: it.digestOf(source{}), file: f, info: info}
	if m, err := readMap(c.dir.mapOf(key)); err == nil && s.digest == "" {
		s.digest = m.Digest
	}
	return s, nil
}

// read compares the bytes on the disk with the digest.
// Errors: backends.ErrCorrupt; ctx's; those of the local disk.
func (s *suspect) read(ctx context.Context, progress func(done, total int64)) error {
	dropPages(s.file)
	h := newHasher(s.digest)
	checked := h != nil
	if !checked {
		h = newHasher("sha256:") // reading is all that can be done
	}
	size := s.info.Size()
	for progress(0, size); h.pos < size; progress(h.pos, size) {
		err := h.take(ctx, s.file, min(h.pos+verifyStep, size))
		if isDamage(err) {
			return fmt.Errorf("%w: %v", backends.ErrCorrupt, err)
		}
		if err != nil {
			return err
		}
	}
	if !checked {
		return nil
	}
	return h.check()
}

// judge notes what reading the blob showed, or removes it. again is true if it
// was another file that was read.
func (c *Cache) judge(ctx context.Context, s *suspect, found error) (again bool, err error) {
	it, err := c.take(ctx, s.key)
	if err != nil {
		return false, err
	}
	defer it.release()
	now, err := os.Lstat(c.dir.file(s.key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, errNotWhole
	case err != nil:
		return false, localError("verify", err)
	case !os.SameFile(now, s.info) || !now.ModTime().Equal(s.info.ModTime()):
		return true, nil
	case found != nil:
		c.opts.Log.Error("a blob on the disk is damaged", "key", s.key, "err", found)
		return false, it.condemn(found)
	}
	verdict(c.dir, s.key, s.digest, s.info, c.opts.Log)
	it.mu.Lock()
	it.verified(s.info)
	it.mu.Unlock()
	c.touch(s.key)
	return false, nil
}

// condemn removes the whole blob and returns why. Call on the main item, with busy
// held.
func (it *item) condemn(why error) error {
	it.closeIdle()
	for _, one := range it.family() {
		if d, _ := one.live(); d != nil && d.phase.Load() == whole {
			d.stored.disk.Lock()
			d.bury(why)
			d.stored.disk.Unlock()
		}
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	return errors.Join(why, it.erase())
}
