// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/layers"
)

// verifyStep is how much Verify reads between two calls of progress.
const verifyStep = 8 << 20

var errNotWhole = fmt.Errorf("%w: the blob is not whole here", fs.ErrInvalid)

// Verify reads a whole blob again, from the disk and not from memory, whatever
// was believed of it, and compares its digest. A wrong or unreadable one is
// removed, watchers are called, and all handles give the error from then on, except
// through the kernel (Blob.File), which knows only of the file. Of a
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
		s := &suspect{table: &c.table, key: key}
		if err := s.open(ctx); err != nil {
			return err
		}
		found := s.read(ctx, progress)
		s.file.Close()
		if found != nil && !errors.Is(found, backends.ErrCorrupt) {
			return found
		}
		if again, err := s.judge(ctx, found); !again {
			return err
		}
	}
}

// A suspect is a whole blob that is being read again.
type suspect struct {
	*table
	key    Key
	digest string
	file   *os.File
	info   os.FileInfo
}

// open opens the file of a whole blob.
func (s *suspect) open(ctx context.Context) error {
	family, err := s.take(ctx, s.key)
	if err != nil {
		return err
	}
	defer family.release()
	s.file, s.info, err = openRegular(s.dir.file(s.key), os.O_RDONLY)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errNotWhole
	case errors.Is(err, errNotOurs):
		return family.condemn(fmt.Errorf("%w: %v", backends.ErrCorrupt, err))
	case err != nil:
		return localError("verify", err)
	}
	s.digest = source{}.digestOf(s.key)
	if m, err := readMap(s.dir.mapOf(s.key)); err == nil && s.digest == "" {
		s.digest = m.Digest
	}
	return nil
}

// read compares the bytes on the disk with the digest.
// Errors: backends.ErrCorrupt; ctx's; those of the local disk.
func (s *suspect) read(ctx context.Context, progress func(done, total int64)) error {
	dropPages(s.file)
	if vsif.IsDigest(s.digest) {
		size := s.info.Size()
		err := layers.Verify(ctx, s.dir.layers(), s.file, size, s.digest, func(done int64) { progress(done, size) })
		if isDamage(err) {
			err = fmt.Errorf("%w: %v", backends.ErrCorrupt, err)
		}
		return readError(err)
	}
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
	return h.compare()
}

// judge notes what reading the blob showed, or removes it. again is true if it
// was another file that was read.
func (s *suspect) judge(ctx context.Context, found error) (again bool, err error) {
	f, err := s.take(ctx, s.key)
	if err != nil {
		return false, err
	}
	defer f.release()
	now, err := os.Lstat(s.dir.file(s.key))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, errNotWhole
	case err != nil:
		return false, localError("verify", err)
	case !os.SameFile(now, s.info) || !now.ModTime().Equal(s.info.ModTime()):
		return true, nil
	case found != nil:
		s.log.Error("a blob on the disk is damaged", "key", s.key, "err", found)
		return false, f.condemn(found)
	}
	verdict(s.dir, s.key, s.digest, s.info, s.log)
	f.main.mu.Lock()
	f.main.verified(s.info)
	f.main.mu.Unlock()
	s.records.touch(s.key)
	return false, nil
}

// condemn removes the whole blob and returns why. Call with the lock held.
func (f *family) condemn(why error) error {
	f.closeIdle()
	for _, it := range f.members() {
		if d, _ := it.live(); d != nil && d.phase.Load() == whole {
			d.stored.disk.Lock()
			it.bury(d, why)
			d.stored.disk.Unlock()
		}
	}
	f.main.mu.Lock()
	defer f.main.mu.Unlock()
	return errors.Join(why, f.main.erase())
}
