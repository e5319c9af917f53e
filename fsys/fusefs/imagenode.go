// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/fsys"
)

var (
	_ gofs.NodeGetattrer   = (*imageNode)(nil)
	_ gofs.NodeSetattrer   = (*imageNode)(nil)
	_ gofs.NodeOpener      = (*imageNode)(nil)
	_ gofs.NodeOnForgetter = (*imageNode)(nil)
	_ gofs.NodeGetxattrer  = (*imageNode)(nil)
	_ gofs.NodeStatfser    = (*imageNode)(nil)
	_ gofs.NodeFsyncer     = (*imageNode)(nil)
)

// mode is how the kernel reads an image.
type mode int

const (
	undecided   mode = iota
	cached           // through us, keeping the pages
	passthrough      // the backing file itself
)

// An imageNode is an image that the kernel knows, in one generation.
//
// The kernel refuses to mix modes on one inode (fs/fuse/iomode.c: an opening in another
// mode fails with EIO), and go-fuse counts the users of a backing file wrongly if one of
// its inodes has handles of both modes (fs/bridge.go, releaseBackingIDRef). So the first
// opening decides the mode, until the last handle is released:
//
//	            whole: FOPEN_PASSTHROUGH
//	undecided ─────────────────────────── passthrough
//	    │  └───────────────── cached           │
//	    │    not: FOPEN_KEEP_CACHE │           │
//	    └──────── last handle ─────┴───────────┘
//
// A handle counts until the bridge has released it, too: the bridge drops the backing file
// after it has called our Release, and an opening in between, with passthrough, would lose
// the backing file that it just got.
//
// An image stays one inode for the kernel, because a file system above this one
// (overlayfs) keeps the inode of a name and answers ESTALE when that changes. The name
// gets a new inode, with the same number and the next generation, in two cases only: when
// a download did not match its digest while it was open, because its pages must not be
// mixed with those of the next download; and when the cache's file was removed while it
// was open with passthrough.
type imageNode struct {
	gofs.Inode
	noXattrs
	m     *Mounted
	image *fsys.Image
	gen   uint64

	nameless atomic.Bool // deleted, or replaced by a rename
	renamed  atomic.Bool // it is another node under its new name; the kernel does not know yet

	mu      sync.Mutex // guards the fields below
	mode    mode
	handles int32
	ending  []<-chan struct{} // of handles that the bridge is still releasing: closed when it has
	epoch   cache.Epoch       // of the download that the kernel may have pages of
}

// Getattr learns a size that is not known yet. Until it is known, the kernel caches no
// attributes and asks each time, also after a lookup.
func (n *imageNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if n.image.Attr().Changes && !onlyAsksSizes(ctx) {
		ctx, end := waitable(ctx)
		defer end()
		if err := n.image.LearnSize(ctx); err != nil {
			return n.m.fail("learn the size of", n.image.Ref().String(), err)
		}
	}
	return n.m.getattr(n.image.Attr(), n.nameless.Load(), out)
}

func (n *imageNode) Setattr(ctx context.Context, _ gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if err := n.image.SetAttr(changeOf(in)); err != nil {
		return n.m.refuse("setattr", n.Path(nil), err)
	}
	return n.Getattr(ctx, nil, out)
}

func (n *imageNode) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	return getxattr(n.xattrs, name, dest)
}

func (n *imageNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	return n.m.statfs(out)
}

// Fsync has nothing to do. Loop devices call it on files that they only read.
func (n *imageNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

func (n *imageNode) OnForget() { n.m.opened.forget(n) }

func (n *imageNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	ctx, end := waitable(ctx)
	defer end()
	if forWriting(flags) {
		err := n.openWrite(ctx, caller(ctx, true), flagsOf(flags))
		return nil, 0, n.m.refuse("open for writing", n.Path(nil), err)
	}
	if n.renamed.Load() {
		return nil, 0, syscall.ESTALE // the kernel looks the name up
	}
	sized := !n.image.Attr().Changes
	blob, err := n.image.Open(ctx)
	if err != nil {
		return nil, 0, n.fail("open", err)
	}
	mode, keep := n.decide(blob)
	switch mode {
	case passthrough:
		n.m.counts.passthrough.Add(1)
		return &passHandle{readHandle{n: n, blob: blob, file: n.m.files.add(ctx, n.EmbeddedInode(), false)}}, fuse.FOPEN_NOFLUSH, 0
	case cached:
		n.m.counts.cached.Add(1)
		how := uint32(fuse.FOPEN_NOFLUSH)
		switch {
		case !sized:
			// The kernel still has another size, and must not cut reads off there.
			how |= fuse.FOPEN_DIRECT_IO
		case keep:
			how |= fuse.FOPEN_KEEP_CACHE
		}
		return &readHandle{n: n, blob: blob, file: n.m.files.add(ctx, n.EmbeddedInode(), false)}, how, 0
	}
	// The cache's file was removed while it was open with passthrough, or the download was
	// thrown away: the kernel retries with the next generation.
	_ = blob.Close()
	return nil, 0, syscall.ESTALE
}

// openWrite is OpenWrite of the image. A renamed one is opened under its new name here,
// because the kernel retries a lookup once, not twice.
func (n *imageNode) openWrite(ctx context.Context, who fsys.Caller, flags fsys.Flags) error {
	if !n.renamed.Load() {
		return n.image.OpenWrite(ctx, who, flags)
	}
	name, parent := n.Parent()
	if parent == nil {
		return fsys.ErrRetry
	}
	node, err := parent.Operations().(*dirNode).dir.Lookup(ctx, name, who)
	if image, ok := node.(*fsys.Image); ok && err == nil {
		return image.OpenWrite(ctx, who, flags)
	}
	return fsys.ErrRetry // the kernel's next lookup tells why
}

// fail is Mounted.fail, and notes the error for the attribute.
func (n *imageNode) fail(op string, err error) syscall.Errno {
	n.image.RecordError(err)
	if errors.Is(err, backends.ErrNoVariant) {
		return n.m.refuse(op, n.Path(nil), err)
	}
	return n.m.fail(op, n.image.Ref().String(), err)
}

func forWriting(flags uint32) bool {
	return flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
}

// flagsOf translates the flags of open(2).
func flagsOf(flags uint32) (f fsys.Flags) {
	if forWriting(flags) {
		f |= fsys.Write
	}
	if flags&syscall.O_TRUNC != 0 {
		f |= fsys.Truncate
	}
	if flags&syscall.O_EXCL != 0 {
		f |= fsys.Exclusive
	}
	return f
}

// decide returns the mode for one more handle, and makes it the inode's; undecided if the
// inode's mode is not possible any more. keep says that the kernel's pages are valid. The
// caller releases each handle.
func (n *imageNode) decide(blob *cache.Blob) (_ mode, keep bool) {
	can := n.m.backing.usable(blob)
	n.mu.Lock()
	defer n.mu.Unlock()
	held := n.inUse()
	keep = n.epoch.Agrees(blob.Epoch())
	switch {
	case held && (n.mode == passthrough && !can || n.mode == cached && !keep):
		return undecided, false
	case held:
	case can:
		n.mode = passthrough
	default:
		n.mode = cached
	}
	if n.mode == cached {
		n.epoch = blob.Epoch()
	}
	n.handles++
	n.m.opened.add(n)
	return n.mode, keep
}

// inUse reports whether the inode has handles, or the bridge is still releasing some. It
// needs mu.
func (n *imageNode) inUse() bool {
	n.ending = slices.DeleteFunc(n.ending, func(over <-chan struct{}) bool {
		select {
		case <-over:
			return true
		default:
			return false
		}
	})
	return n.handles > 0 || len(n.ending) > 0
}

// release ends a handle; the bridge is done with it when over is closed. After the last
// handle, the pages of an image that will be read with passthrough are useless, because
// the cache's file has its own.
func (n *imageNode) release(over <-chan struct{}) {
	n.mu.Lock()
	n.handles--
	if n.mode == cached {
		n.ending = append(n.ending, over)
	}
	last := n.handles == 0 && n.mode == cached
	n.mu.Unlock()
	if last && n.m.backing.on() && n.image.Whole() {
		n.m.notifier.dropPages(n)
	}
}

// outdated reports whether the next opening needs a new generation.
func (n *imageNode) outdated() bool {
	n.mu.Lock()
	mode, held := n.mode, n.inUse()
	n.mu.Unlock()
	return held && (mode == passthrough && !n.image.Whole() || mode == cached && n.stale())
}

// stale reports whether the kernel may have pages of a discarded download.
func (n *imageNode) stale() bool {
	n.mu.Lock()
	mode, epoch := n.mode, n.epoch
	n.mu.Unlock()
	return mode == cached && !epoch.Agrees(n.image.Epoch())
}

// A readHandle reads an image through us.
type readHandle struct {
	n      *imageNode
	blob   *cache.Blob
	file   *openFile
	logged atomic.Uint32 // the errno that was logged last
}

var (
	_ gofs.FileReader   = (*readHandle)(nil)
	_ gofs.FileReleaser = (*readHandle)(nil)
	_ gofs.FileFlusher  = (*readHandle)(nil)
	_ gofs.FileLseeker  = (*readHandle)(nil)
)

func (h *readHandle) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	want := min(int64(len(dest)), h.blob.Size()-off)
	if want <= 0 {
		return fuse.ReadResultData(nil), 0
	}
	if h.blob.Has(off, want) {
		// The kernel takes the bytes from the cache's file by splice.
		return fuse.ReadResultFd(h.blob.RawFile().Fd(), off, int(want)), 0
	}
	ctx, end := waitable(ctx)
	defer end()
	got, err := h.blob.ReadAtContext(ctx, dest[:want], off)
	if err != nil && !errors.Is(err, io.EOF) && int64(got) < want {
		return nil, h.fail(err)
	}
	return fuse.ReadResultData(dest[:got]), 0
}

// fail is Mounted.fail, and logs each reason once for a handle: the kernel reads ahead in
// several requests, and programs retry.
func (h *readHandle) fail(err error) syscall.Errno {
	e, _ := errno(err)
	if e != syscall.EINTR && h.logged.Swap(uint32(e)) == uint32(e) {
		return e
	}
	return h.n.fail("read", err)
}

// Lseek tells holes, which the files of container images have many of.
func (h *readHandle) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if at, e := seekHole(off, uint64(h.blob.Size()), whence); e != 0 {
		return at, e
	}
	ctx, end := waitable(ctx)
	defer end()
	start, stop, ok, err := h.blob.NextData(ctx, int64(off))
	switch {
	case err != nil:
		return 0, h.fail(err)
	case whence == unix.SEEK_DATA && !ok:
		return 0, syscall.ENXIO
	case whence == unix.SEEK_DATA:
		return uint64(start), 0
	case ok && uint64(start) == off:
		return uint64(stop), 0
	}
	return off, 0
}

func (h *readHandle) Flush(context.Context) syscall.Errno { return 0 }

func (h *readHandle) Release(ctx context.Context) syscall.Errno {
	_ = h.blob.Close()
	h.n.release(ctx.Done())
	h.n.m.files.remove(h.file)
	return 0
}

// A passHandle lets the kernel read the blob's file itself. All handles of an inode in
// mode passthrough are of this type, and no others.
type passHandle struct{ readHandle }

var _ gofs.FilePassthroughFder = (*passHandle)(nil)

func (h *passHandle) PassthroughFd() (int, bool) {
	f, ok := h.blob.File()
	if !ok {
		return 0, false
	}
	return int(f.Fd()), true
}
