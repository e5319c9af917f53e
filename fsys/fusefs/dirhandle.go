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

// OpendirHandle lets the kernel keep the names and answer the next reader by
// itself, if nothing changes them that we are not told of. It drops them when
// the directory's time changes (fs/fuse/readdir.c), which ours does with each
// change; what the kernel itself does there it knows.
func (n *dirNode) OpendirHandle(ctx context.Context, _ uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	h := &dirHandle{n: n, list: n.dir.OpenListing()}
	if !n.dir.Cacheable() {
		return h, 0, 0
	}
	if n.listed.Load() {
		n.dir.RefreshListing(ctx)
	}
	h.kept = true
	n.asked.Store(0)
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
	ctx, end := await(ctx)
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
	ctx, end := await(ctx)
	defer end()
	h.at, h.last = min(off, dots), nil
	err := h.list.Seek(ctx, off-h.at)
	h.at += h.list.Offset()
	return h.n.m.fail("seekdir", h.n.Path(nil), err)
}

// Lookup answers for the attributes in a READDIRPLUS. Where the registry would
// have to be asked there are none: the kernel looks the name up when somebody
// wants to know, and plain ls does not.
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

// wantsAttributes is how many names are looked up one by one while a directory is
// read before we believe that all will be: the kernel then asks for them together
// with the names (READDIRPLUS), if it does not have the names already.
const wantsAttributes = 200

// noteLookup makes the kernel read the directory anew, from where the reader is,
// when somebody asks for the attributes of all names that the kernel keeps. A
// list that the kernel is only filling must not be touched; see dirNode.tell.
func (n *dirNode) noteLookup() {
	if n.readers.Load() > 0 && n.asked.Add(1) == wantsAttributes && !n.filled.Load() {
		n.m.notifier.drop(n)
	}
}

func (h *dirHandle) Fsyncdir(context.Context, uint32) syscall.Errno { return 0 }
