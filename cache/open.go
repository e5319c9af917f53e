// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache/chunks"
)

// openUnder opens what is on the disk of a part, or begins anew. The result has one
// handle. Call with busy held, while data is nil. Errors: those of the local disk.
func (it *item) openUnder(src source) (*data, error) {
	d, err := it.openPart(src)
	if isFull(err) && it.cache.evictFor(chunks.Size, true) {
		d, err = it.openPart(src)
	}
	if err != nil {
		return nil, err
	}
	d.users++ // the committer
	it.opened(d)
	if !it.cache.spawn((&committer{data: d}).run) {
		d.leave()
		it.exit(d)
		return nil, ErrClosed
	}
	return d, nil
}

// opened takes note of what was opened, with its first handle.
func (it *item) opened(d *data) {
	info := d.info
	if info == nil {
		info, _ = d.stored.file.Load().Stat()
	}
	it.mu.Lock()
	defer it.mu.Unlock()
	it.data, it.handles = d, 0
	it.rec.Size, it.rec.State, it.shared = d.size, d.state(), d.shared
	if info != nil && !d.shared {
		it.setOnDisk(disk.Allocated(info))
	}
	it.addHandle(d)
}

// newData returns the common part.
func (it *item) newData(size int64, digest string) *data {
	d := &data{item: it, size: size, settled: make(chan struct{}), changed: make(chan struct{}, 1), committed: make(chan struct{})}
	d.stored.size, d.check.digest = size, digest
	d.ctx, d.cancel = context.WithCancel(it.cache.ctx)
	return d
}

// openWhole opens the whole blob, nil if there is none that can be trusted.
// Errors: ctx's; those of the local disk.
func (it *item) openWhole(ctx context.Context, src source) (*data, error) {
	dir := it.cache.dir
	f, info, err := openRegular(dir.file(it.key), os.O_RDONLY)
	if err != nil {
		return nil, it.unusable(err)
	}
	if src.image.Size >= 0 && src.image.Size != info.Size() && it.digestOf(src) == "" {
		f.Close()
		return nil, it.unusable(errNotOurs)
	}
	if !it.trusts(f, info) {
		err = hashFile(ctx, f, it.digestOf(src))
		if errors.Is(err, backends.ErrCorrupt) || isDamage(err) {
			f.Close()
			it.cache.opts.Log.Warn("a blob on the disk is damaged", "key", it.key, "err", err)
			return nil, it.unusable(errNotOurs)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		verdict(dir, it.key, it.digestOf(src), info, it.cache.opts.Log)
		it.mu.Lock()
		it.verified(info)
		it.mu.Unlock()
	}
	d := it.newData(info.Size(), it.digestOf(src))
	d.stored.file.Store(f)
	d.info = info
	d.phase.Store(whole)
	close(d.settled)
	if it.cache.opts.FSVerity && !it.guarded {
		it.guarded = it.cache.spawn(func() { it.cache.guard(it.key) })
	}
	return d, nil
}

// digestOf returns the digest that the blob must have, "" if there is none.
func (it *item) digestOf(src source) string { return blobDigest(it.key, src) }

func blobDigest(key Key, src source) string {
	if k := string(key); strings.HasPrefix(k, "sha256:") {
		return k
	}
	return src.image.Digest
}

// unusable turns what keeps a file from being used into "there is none", after
// removing it; errors of the disk stay.
func (it *item) unusable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errNotOurs):
		return localError("remove", it.slot().drop())
	}
	return localError("open", err)
}

// trusts reports whether a file is the one whose digest matched before. A file
// that somebody wrote to has another time, and one that the kernel guards nobody
// can write to.
func (it *item) trusts(f *os.File, info os.FileInfo) bool {
	it.mu.Lock()
	rec := it.rec
	it.mu.Unlock()
	if !rec.Verified.IsZero() && rec.ModTime.Equal(info.ModTime()) && rec.Size == info.Size() {
		return true
	}
	m, err := readMap(it.cache.dir.mapOf(it.key))
	return err == nil && m.Name == string(it.key) && m.Size == info.Size() &&
		(m.Verified == info.ModTime().UnixNano() || guarded(m, f))
}

// readMap reads the map file at path. Errors: any means that there is no map.
func readMap(path string) (*chunks.Map, error) {
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return chunks.ReadMap(f)
}

// chunksOf is what the map and the list of recent chunks beside d call it.
func (d *data) chunksOf() chunks.Blob {
	return chunks.Blob{Name: string(d.item.id()), Digest: d.check.digest, Size: d.size}
}

// readRecent reads the list at path; ok is false if there is none for this blob.
func readRecent(path string, of chunks.Blob) (have chunks.Set, ok bool) {
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	return chunks.ReadRecent(f, bootID(), of)
}

// verdict notes beside the blob that it is as it should be. An error costs
// reading it once more.
func verdict(dir layout, key Key, digest string, info os.FileInfo, log *slog.Logger) {
	m := &chunks.Map{Blob: chunks.Blob{Name: string(key), Digest: digest, Size: info.Size()}, Verified: info.ModTime().UnixNano()}
	if old, err := readMap(dir.mapOf(key)); err == nil {
		m.Verity = old.Verity // of no use if it is another file: the kernel will say so
	}
	if err := m.Write(dir.mapOf(key)); err != nil {
		log.Warn("cannot note that a blob was verified", "key", key, "err", err)
	}
}

// hashFile reads all of f and compares. Errors: backends.ErrCorrupt; ctx's; those of the local disk.
func hashFile(ctx context.Context, f *os.File, digest string) error {
	h := newHasher(digest)
	if h == nil {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return localError("read", err)
	}
	if err := h.take(ctx, f, info.Size()); err != nil {
		return err
	}
	return h.check()
}

// checkSize refuses what no image can be. Whoever says that an image has no bytes
// says that its digest is that of nothing: there is nothing to wait for.
// Errors: backends.ErrCorrupt.
func checkSize(size int64, digest string) error {
	if size > backends.MaxSize {
		return fmt.Errorf("%w: an image of %d bytes", backends.ErrCorrupt, size)
	}
	if h := newHasher(digest); size == 0 && h != nil {
		if err := h.check(); err != nil {
			return fmt.Errorf("the registry says 0 bytes: %w", err)
		}
	}
	return nil
}

// openPart opens the blob under way, or begins anew.
func (it *item) openPart(src source) (*data, error) {
	d := it.newData(src.image.Size, it.digestOf(src))
	n := chunks.Count(d.size)
	d.stored.have, d.stored.durable, d.check.served = chunks.NewSet(n), chunks.NewSet(n), it.servedOf(d.size)
	d.check.matched = make(chan struct{})
	d.download = d.newDownload()
	d.check.hash = newHasher(d.check.digest)
	if err := it.openSparse(d); err != nil {
		d.cancel()
		d.stored.closeWriter()
		return nil, localError("create", err)
	}
	d.stored.recent = chunks.StartRecent(it.slot().recent(), bootID(), d.chunksOf(), d.stored.have)
	d.hinted.Store(d.stored.have.Len() > 0)
	return d, nil
}

// openSparse opens the sparse file of d, of the right length, with what is known
// to be in it.
func (it *item) openSparse(d *data) error {
	at := it.slot()
	if err := it.cache.dir.room(it.key); err != nil {
		return err
	}
	m, err := readMap(at.mapOf())
	if err != nil || m.Blob != d.chunksOf() || m.Verified != 0 {
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

var errNotOurs = errors.New("not a file of the cache")

// openRegular opens a file that must be what the cache put there: a regular file
// that only we can have written, under no other name, so that nobody's later write
// goes into it.
func openRegular(path string, flag int) (*os.File, os.FileInfo, error) {
	f, err := backends.OpenRegular(path, flag|backends.NoFollow, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrInvalid) {
		return nil, nil, fmt.Errorf("%w: %v", errNotOurs, err)
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && (disk.Names(info) > 1 || !backends.OnlyOurs(info)) {
		err = errNotOurs
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// localError is the border to the disk: errno that callers act on stay, and a
// missing file of our own must not read as "no such image".
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
