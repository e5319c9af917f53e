// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/fsys"
)

var (
	_ gofs.NodeLookuper       = (*dirNode)(nil)
	_ gofs.NodeOpendirHandler = (*dirNode)(nil)
	_ gofs.NodeGetattrer      = (*dirNode)(nil)
	_ gofs.NodeSetattrer      = (*dirNode)(nil)
	_ gofs.NodeStatfser       = (*dirNode)(nil)
	_ gofs.NodeFsyncer        = (*dirNode)(nil)
	_ gofs.NodeGetxattrer     = (*dirNode)(nil)
	_ gofs.NodeListxattrer    = (*dirNode)(nil)
	_ gofs.NodeCreater        = (*dirNode)(nil)
	_ gofs.NodeMkdirer        = (*dirNode)(nil)
	_ gofs.NodeRmdirer        = (*dirNode)(nil)
	_ gofs.NodeUnlinker       = (*dirNode)(nil)
	_ gofs.NodeRenamer        = (*dirNode)(nil)
	_ gofs.NodeLinker         = (*dirNode)(nil)
	_ gofs.NodeSymlinker      = (*dirNode)(nil)
	_ gofs.NodeMknoder        = (*dirNode)(nil)
)

// A dirNode is a directory that the kernel knows.
type dirNode struct {
	gofs.Inode
	noXattrs
	m   *Mounted
	dir *fsys.Dir
}

// child makes the inode of a node and fills in its entry.
func (n *dirNode) child(ctx context.Context, node fsys.Node, out *fuse.EntryOut) *gofs.Inode {
	a := node.Attr()
	id := gofs.StableAttr{Ino: a.Ino, Mode: syscall.S_IFREG, Gen: firstGen}
	timeout := n.m.opts.NameTimeout
	if n.dir.Fresh() {
		timeout = localNameTimeout
	}
	var ops gofs.InodeEmbedder
	switch node := node.(type) {
	case *fsys.Dir:
		ops, id.Mode = &dirNode{m: n.m, dir: node}, syscall.S_IFDIR
	case *fsys.Image:
		if !node.Whole() {
			timeout = min(timeout, partialNameTimeout)
		}
		id.Gen = n.m.opened.generation(a.Ino)
		ops = &imageNode{m: n.m, image: node, gen: id.Gen}
	case *fsys.Draft:
		// Whether the name means the draft or an image depends on who asks, and when.
		ops, timeout = &draftNode{m: n.m, draft: node}, 0
	}
	n.m.putEntry(a, timeout, out)
	return n.NewInode(ctx, ops, id)
}

func (n *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	node, err := n.dir.Lookup(ctx, name, caller(ctx, false))
	if err != nil {
		if n.dir.Fresh() {
			out.SetEntryTimeout(noTimeout) // that it is not there is not believed
		}
		return nil, n.m.fail("lookup", name, err)
	}
	return n.child(ctx, node, out), 0
}

func (n *dirNode) OpendirHandle(context.Context, uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	return &dirHandle{n: n, list: n.dir.OpenListing()}, 0, 0
}

func (n *dirNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.m.getattr(n.dir.Attr(), out)
}

// Setattr accepts what cp -a and rsync -a set on directories, and changes nothing.
func (n *dirNode) Setattr(ctx context.Context, _ gofs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return n.Getattr(ctx, nil, out)
}

func (n *dirNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	return n.m.statfs(out)
}

// Fsync has nothing to do: what the catalogue acknowledges is durable.
func (n *dirNode) Fsync(context.Context, gofs.FileHandle, uint32) syscall.Errno { return 0 }

func (n *dirNode) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	return getxattr(n.dir.Xattrs(), name, dest)
}

func (n *dirNode) Listxattr(_ context.Context, dest []byte) (uint32, syscall.Errno) {
	return listxattr(n.dir.Xattrs(), dest)
}

func (n *dirNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	draft, file, err := n.dir.Create(ctx, name, caller(ctx, true), flags&syscall.O_EXCL != 0)
	if err != nil {
		return nil, nil, 0, n.m.fail("create", name, err)
	}
	n.m.counts.written.Add(1)
	return n.child(ctx, draft, out), &draftHandle{m: n.m, name: name, file: file}, 0, 0
}

func (n *dirNode) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	dir, err := n.dir.Mkdir(ctx, name)
	if err != nil {
		return nil, n.m.fail("mkdir", name, err)
	}
	return n.child(ctx, dir, out), 0
}

func (n *dirNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	return n.m.fail("rmdir", name, n.dir.Rmdir(ctx, name))
}

func (n *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	return n.m.fail("unlink", name, n.dir.Unlink(ctx, name))
}

func (n *dirNode) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := newParent.(*dirNode)
	if !ok || flags&^unix.RENAME_NOREPLACE != 0 {
		return syscall.EINVAL
	}
	err := n.dir.Rename(ctx, name, to.dir, newName, flags&unix.RENAME_NOREPLACE != 0)
	return n.m.fail("rename", newName, err)
}

// A registry has neither links nor devices.

func (n *dirNode) Link(context.Context, gofs.InodeEmbedder, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

func (n *dirNode) Symlink(context.Context, string, string, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

func (n *dirNode) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// A dirHandle is an open directory. The bridge calls it for one request at a time.
type dirHandle struct {
	n    *dirNode
	list *fsys.Listing
	at   uint64 // number of the entry read last: "." is 1, ".." is 2
	last fsys.Entry
	dent fuse.DirEntry
}

var (
	_ gofs.FileReaddirenter = (*dirHandle)(nil)
	_ gofs.FileSeekdirer    = (*dirHandle)(nil)
	_ gofs.FileLookuper     = (*dirHandle)(nil)
	_ gofs.FileReleasedirer = (*dirHandle)(nil)
	_ gofs.FileFsyncdirer   = (*dirHandle)(nil)
)

const dots = 2

func (h *dirHandle) Readdirent(ctx context.Context) (*fuse.DirEntry, syscall.Errno) {
	if h.at < dots {
		h.at++
		h.last = fsys.Entry{Name: ".."[:h.at], Ino: h.n.StableAttr().Ino, Dir: true}
	} else {
		e, ok, err := h.list.Next(ctx)
		if err != nil {
			return nil, h.n.m.fail("readdir", h.n.Path(nil), err)
		}
		if !ok {
			return nil, 0
		}
		h.at, h.last = dots+uint64(h.list.Offset()), e
	}
	h.dent = fuse.DirEntry{Name: h.last.Name, Ino: h.last.Ino, Mode: syscall.S_IFREG, Off: h.at}
	if h.last.Dir {
		h.dent.Mode = syscall.S_IFDIR
	}
	return &h.dent, 0
}

func (h *dirHandle) Seekdir(ctx context.Context, off uint64) syscall.Errno {
	h.at = min(off, dots)
	err := h.list.Seek(ctx, int(off-h.at))
	h.at += uint64(h.list.Offset())
	return h.n.m.fail("seekdir", h.n.Path(nil), err)
}

// Lookup answers for the attributes in a READDIRPLUS. Where the registry would
// have to be asked there are none: the kernel looks the name up when somebody
// wants to know, and plain ls does not.
func (h *dirHandle) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if h.last.Name != name || h.last.Node == nil {
		return nil, syscall.ENOENT
	}
	return h.n.child(ctx, h.last.Node, out), 0
}

func (h *dirHandle) Releasedir(context.Context, uint32) { h.list.Close() }

func (h *dirHandle) Fsyncdir(context.Context, uint32) syscall.Errno { return 0 }

// statfs answers from the cache's disk.
func (m *Mounted) statfs(out *fuse.StatfsOut) syscall.Errno {
	var st syscall.Statfs_t
	if err := syscall.Statfs(m.disk, &st); err != nil {
		m.log.Warn("statfs", "path", m.disk, "err", err)
		return 0 // df shows zeros; a loop device that asks does not fail
	}
	out.FromStatfsT(&st)
	out.NameLen = fsys.MaxName
	return 0
}

// firstGen is the generation of an inode that was never opened in another mode.
const firstGen = 1
