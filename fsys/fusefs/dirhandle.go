// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/sregfs/sregfs/fsys"
)

// A dirHandle is an open directory. The bridge calls it for one request at a time.
type dirHandle struct {
	n    *dirNode
	list *fsys.Listing
	at   uint64      // offset of the entry read last: "." is 1, ".." is 2, others come after that
	last *fsys.Entry // read last, nil if it was one of the dots
	dent fuse.DirEntry
	kept bool // the kernel may answer from what it keeps
}

var (
	_ gofs.FileReaddirenter = (*dirHandle)(nil)
	_ gofs.FileSeekdirer    = (*dirHandle)(nil)
	_ gofs.FileLookuper     = (*dirHandle)(nil)
	_ gofs.FileReleasedirer = (*dirHandle)(nil)
	_ gofs.FileFsyncdirer   = (*dirHandle)(nil)
)

const dots = 2

// OpendirHandle lets the kernel cache the names and answer the next reader itself, if we
// learn of all changes to them. The kernel drops them when the directory's time changes
// (fs/fuse/readdir.c), which we set with each change; it knows of its own changes.
func (n *dirNode) OpendirHandle(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	h := &dirHandle{n: n, list: n.dir.OpenListing()}
	if !n.dir.Cacheable() {
		return h, 0, 0
	}
	if n.listed.Load() {
		n.dir.RefreshListing(ctx)
	}
	h.kept = true
	n.lookups.Store(0)
	n.filled.Store(false)
	n.readers.Add(1)
	return h, fuse.FOPEN_CACHE_DIR, 0
}

func (h *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	h.n.filled.Store(true)
	if h.at < dots {
		h.at++
		h.dent = fuse.DirEntry{Name: ".."[:h.at], Ino: h.n.StableAttr().Ino, Mode: syscall.S_IFDIR, Off: h.at}
		return &h.dent, 0
	}
	ctx, end := waitable(ctx)
	defer end()
	e, err := h.list.Next(ctx)
	if err != nil {
		return nil, h.n.m.fail("readdir", h.n.Path(nil), err)
	}
	if e == nil {
		h.n.listed.Store(true)
		return nil, 0
	}
	h.at, h.last = dots+h.list.Offset(), e
	h.dent = fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: syscall.S_IFREG, Off: h.at}
	if e.Dir {
		h.dent.Mode = syscall.S_IFDIR
	}
	return &h.dent, 0
}

func (h *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	ctx, end := waitable(ctx)
	defer end()
	h.at, h.last = min(off, dots), nil
	err := h.list.Seek(ctx, off-h.at)
	h.at += h.list.Offset()
	return h.n.m.fail("seekdir", h.n.Path(nil), err)
}

// Lookup gives the attributes in a READDIRPLUS. It gives none where that would need a
// request: the kernel looks the name up when a program asks for them, which plain ls does
// not.
func (h *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if h.last == nil || h.last.Name != name {
		return nil, syscall.ENOENT
	}
	node := h.last.Node()
	if node == nil || !h.last.Dir && node.Attr().Size < 0 {
		return nil, syscall.ENOENT
	}
	return h.n.child(ctx, name, node, out), 0
}

func (h *dirHandle) Releasedir(context.Context, uint32) {
	if h.list.Close(); h.kept {
		h.n.readers.Add(-1)
	}
}

// readdirplusAfter is the number of lookups of single names, while a directory is read,
// after which all names are expected to be looked up. The kernel then asks for names with
// attributes (READDIRPLUS), unless it has the names cached.
const readdirplusAfter = 200

// noteLookup drops the names that the kernel has cached, from where the reader is, once a
// program asks for the attributes of all of them. A list that the kernel is still filling
// must not be dropped; see dirNode.notifyKernel.
func (n *dirNode) noteLookup() {
	if n.readers.Load() > 0 && n.lookups.Add(1) == readdirplusAfter && !n.filled.Load() {
		n.m.notifier.dropListing(n)
	}
}

func (h *dirHandle) Fsyncdir(context.Context, uint32) syscall.Errno { return 0 }
