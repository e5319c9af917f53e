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
// The kernel refuses to mix modes on one inode (fs/fuse/iomode.c: the opening
// that does not fit fails with EIO), and go-fuse counts the users of a backing
// file wrongly if handles of both kinds are on one of its inodes
// (fs/bridge.go, releaseBackingIDRef). So the first opening decides, and what it
// decided holds until the last handle is released:
//
//	            whole: FOPEN_PASSTHROUGH
//	undecided ─────────────────────────── passthrough
//	    │  └───────────────── cached           │
//	    │    not: FOPEN_KEEP_CACHE │           │
//	    └──────── last handle ─────┴───────────┘
//
// Released means by the bridge too: it lets go of a backing file after it has told
// us of the release, and an opening in between, with passthrough, would lose the
// backing file that it just got.
//
// It stays one inode for the kernel, because a file system above this one
// (overlayfs) keeps the inode of a name and answers ESTALE when it becomes another.
// Only where bytes were lost or found wrong under who has them open, the name leads
// to a new inode for the others, with the same number and the next generation: a
// download that did not match its digest, whose pages must not be shown beside
// those of the next one, and a file that was taken from under a passthrough inode.
type imageNode struct {
	gofs.Inode
	noXattrs
	m     *Mounted
	image *fsys.Image
	gen   uint64

	nameless atomic.Bool // deleted, or replaced by a rename
	moved    atomic.Bool // has another name, under which it is another node; the kernel does not know yet

	mu      sync.Mutex // guards the fields below
	mode    mode
	handles int32
	ending  []<-chan struct{} // of handles that the bridge is still releasing: closed when it has
	epoch   cache.Epoch       // of the download that the kernel may have pages of
}

// Getattr learns a size that is not known before it is told: the kernel asks again
// each time until then, also after a lookup.
func (n *imageNode) Getattr(ctx context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if n.image.Attr().Changes && !looksOnly(ctx) {
		ctx, end := await(ctx)
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

// Fsync has nothing to do: a loop device asks for it on what it only reads.
func (n *imageNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

func (n *imageNode) OnForget() { n.m.opened.forget(n) }

func (n *imageNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	ctx, end := await(ctx)
	defer end()
	if forWriting(flags) {
		err := n.openWrite(ctx, caller(ctx, true), flagsOf(flags))
		return nil, 0, n.m.refuse("open for writing", n.Path(nil), err)
	}
	if n.moved.Load() {
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
			// The kernel believes another size still: it must not cut reads off there.
			how |= fuse.FOPEN_DIRECT_IO
		case keep:
			how |= fuse.FOPEN_KEEP_CACHE
		}
		return &readHandle{n: n, blob: blob, file: n.m.files.add(ctx, n.EmbeddedInode(), false)}, how, 0
	}
	// The file was taken from under a passthrough inode, or the download from under
	// a cached one: the kernel comes back with the next generation.
	_ = blob.Close()
	return nil, 0, syscall.ESTALE
}

// openWrite is that of the image. One that was moved is written under the name that it
// has now, which the kernel looks up once more and not twice.
func (n *imageNode) openWrite(ctx context.Context, who fsys.Caller, flags fsys.Flags) error {
	if !n.moved.Load() {
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
	return fsys.ErrRetry // the kernel finds out
}

// fail is Mounted.fail, and leaves the error for the attribute.
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

// decide returns the mode for one more handle, and makes it the inode's; undecided
// if the inode's mode is not possible any more. keep says that the pages which the
// kernel may have are good. Each handle is given back with leave.
func (n *imageNode) decide(blob *cache.Blob) (_ mode, keep bool) {
	can := n.m.backing.usable(blob)
	n.mu.Lock()
	defer n.mu.Unlock()
	held := n.held()
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

// held reports whether somebody has the inode open, or the bridge is not done with
// who had. Call with mu held.
func (n *imageNode) held() bool {
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

// leave gives a handle back, whose release is over when that channel is closed.
// What the kernel keeps of an image that it will read by passthrough is of no use
// after the last handle: the file behind it has its own pages.
func (n *imageNode) leave(over <-chan struct{}) {
	n.mu.Lock()
	n.handles--
	if n.mode == cached {
		n.ending = append(n.ending, over)
	}
	last := n.handles == 0 && n.mode == cached
	n.mu.Unlock()
	if last && n.m.backing.on() && n.image.Whole() {
		n.m.notifier.unused(n)
	}
}

// outdated reports whether the next opening should be of a new generation.
func (n *imageNode) outdated() bool {
	n.mu.Lock()
	mode, held := n.mode, n.held()
	n.mu.Unlock()
	return held && (mode == passthrough && !n.image.Whole() || mode == cached && n.stale())
}

// stale reports whether the kernel may have pages of a download that was thrown
// away.
func (n *imageNode) stale() bool {
	n.mu.Lock()
	mode, epoch := n.mode, n.epoch
	n.mu.Unlock()
	return mode == cached && !epoch.Agrees(n.image.Epoch())
}

// A readHandle reads an image through us.
type readHandle struct {
	n    *imageNode
	blob *cache.Blob
	file *openFile
	told atomic.Uint32 // the errno that was logged last
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
	ctx, end := await(ctx)
	defer end()
	got, err := h.blob.ReadAtContext(ctx, dest[:want], off)
	if err != nil && !errors.Is(err, io.EOF) && int64(got) < want {
		return nil, h.fail(err)
	}
	return fuse.ReadResultData(dest[:got]), 0
}

// fail is Mounted.fail, which logs a reason once for a handle: the kernel reads
// ahead in several requests, and a program tries again.
func (h *readHandle) fail(err error) syscall.Errno {
	e, _ := errno(err)
	if e != syscall.EINTR && h.told.Swap(uint32(e)) == uint32(e) {
		return e
	}
	return h.n.fail("read", err)
}

func (h *readHandle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	return seekHole(off, uint64(h.blob.Size()), whence)
}

func (h *readHandle) Flush(context.Context) syscall.Errno { return 0 }

func (h *readHandle) Release(ctx context.Context) syscall.Errno {
	_ = h.blob.Close()
	h.n.leave(ctx.Done())
	h.n.m.files.remove(h.file)
	return 0
}

// A passHandle lets the kernel read the file behind the blob itself. Only this
// type does: on an inode in mode passthrough all handles are of it.
type passHandle struct{ readHandle }

var _ gofs.FilePassthroughFder = (*passHandle)(nil)

func (h *passHandle) PassthroughFd() (int, bool) {
	f, ok := h.blob.File()
	if !ok {
		return 0, false
	}
	return int(f.Fd()), true
}
