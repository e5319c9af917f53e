// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/fsys"
)

var (
	_ gofs.NodeGetattrer  = (*draftNode)(nil)
	_ gofs.NodeSetattrer  = (*draftNode)(nil)
	_ gofs.NodeOpener     = (*draftNode)(nil)
	_ gofs.NodeGetxattrer = (*draftNode)(nil)
	_ gofs.NodeStatfser   = (*draftNode)(nil)
)

// A draftNode is a file that is being written, as the kernel knows it. The
// kernel keeps neither its name nor its attributes without asking.
type draftNode struct {
	gofs.Inode
	noXattrs
	m     *Mounted
	draft *fsys.Draft

	nameless atomic.Bool // as imageNode.nameless
}

func (n *draftNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.m.getattr(n.draft.Attr(), n.nameless.Load(), out)
}

func (n *draftNode) Setattr(ctx context.Context, _ gofs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	ctx, end := waitable(ctx)
	defer end()
	if err := n.draft.SetAttr(ctx, changeOf(in)); err != nil {
		return n.m.refuse("setattr", n.Path(nil), err)
	}
	return n.Getattr(ctx, nil, out)
}

func (n *draftNode) Open(ctx context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	ctx, end := waitable(ctx)
	defer end()
	write := forWriting(flags)
	file, err := n.draft.Open(ctx, caller(ctx, write), flagsOf(flags))
	if err != nil {
		if write {
			return nil, 0, n.m.refuse("open for writing", n.Path(nil), err)
		}
		return nil, 0, n.m.fail("open", n.Path(nil), err)
	}
	h := &draftHandle{m: n.m, name: n.Path(nil), file: file, open: n.m.files.add(ctx, n.EmbeddedInode(), write)}
	if !write {
		return h, fuse.FOPEN_NOFLUSH, 0
	}
	n.m.counts.written.Add(1)
	return h, 0, 0
}

// Getxattr tells what is asked for by name; nothing is listed, so that rsync -X has
// nothing to copy or to remove.
func (n *draftNode) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	return getxattr(n.draft.Xattrs, name, dest)
}

func (n *draftNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	return n.m.statfs(out)
}

// A draftHandle is an open draft.
type draftHandle struct {
	m    *Mounted
	name string
	file *fsys.File
	open *openFile
}

var (
	_ gofs.FileReader    = (*draftHandle)(nil)
	_ gofs.FileWriter    = (*draftHandle)(nil)
	_ gofs.FileFlusher   = (*draftHandle)(nil)
	_ gofs.FileFsyncer   = (*draftHandle)(nil)
	_ gofs.FileAllocater = (*draftHandle)(nil)
	_ gofs.FileLseeker   = (*draftHandle)(nil)
	_ gofs.FileReleaser  = (*draftHandle)(nil)
)

func (h *draftHandle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n, err := h.file.ReadAt(dest, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, h.m.fail("read", h.name, err)
	}
	return fuse.ReadResultData(dest[:n]), 0
}

func (h *draftHandle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	ctx, end := waitable(ctx)
	defer end()
	n, err := h.file.WriteAt(ctx, data, off)
	return uint32(n), h.m.refuse("write", h.name, err)
}

// Flush is close(2) of one descriptor: if it may be the last, the image is
// published now, and the error is close's.
func (h *draftHandle) Flush(ctx context.Context) syscall.Errno {
	ctx, end := waitable(ctx)
	defer end()
	return h.m.refuse("close", h.name, h.file.Flush(ctx, caller(ctx, true)))
}

// Fsync is fsync(2): the file is durable here, and no more. Closing publishes it.
func (h *draftHandle) Fsync(context.Context, uint32) syscall.Errno {
	return h.m.refuse("fsync", h.name, h.file.Sync())
}

func (h *draftHandle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	return seekHole(off, uint64(h.file.Size()), whence)
}

func (h *draftHandle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if mode&^unix.FALLOC_FL_KEEP_SIZE != 0 {
		return h.m.refuse("fallocate", h.name, errAllocate)
	}
	ctx, end := waitable(ctx)
	defer end()
	how := spool.Grow
	if mode != 0 {
		how = spool.KeepSize
	}
	err := h.file.Allocate(ctx, int64(off), int64(size), how)
	return h.m.refuse("fallocate", h.name, err)
}

// Release is the end of the handle, which nobody waits for: no request's context
// may end what is still to do.
func (h *draftHandle) Release(ctx context.Context) syscall.Errno {
	h.file.Close(context.WithoutCancel(ctx))
	h.m.files.remove(h.open)
	return 0
}
