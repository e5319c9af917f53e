// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"sync/atomic"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
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

	changed  atomic.Int64 // when names in it changed last, in Unix nanoseconds; 0: not since the kernel knows it
	notified atomic.Int64 // counts what the notifier passed on
	listed   atomic.Bool  // all of it was listed since it is known: the kernel may have kept that
	readers  atomic.Int32 // handles that the kernel may answer from what it keeps
	lookups  atomic.Int32 // names looked up since the last opening
	filled   atomic.Bool  // the kernel asked us for names since then
}

// attr returns the directory's attributes. Its time is that of the last change of its
// names, by which the kernel tells whether the names that it has cached are valid.
func (n *dirNode) attr() fsys.Attr {
	a := n.dir.Attr()
	if changed := n.changed.Load(); changed != 0 {
		a.ModTime = time.Unix(0, changed)
	}
	return a
}

// child returns the inode of a node and fills in its entry.
func (n *dirNode) child(ctx context.Context, name string, node fsys.Node, out *fuse.EntryOut) *gofs.Inode {
	timeout := n.m.opts.NameTimeout
	if n.dir.Volatile() {
		timeout = localNameTimeout
	}
	switch node := node.(type) {
	case *fsys.Dir:
		if known, ok := n.known(name).(*dirNode); ok && known.dir.Same(node) {
			n.m.putEntry(known.attr(), timeout, out)
			return known.EmbeddedInode()
		}
		ops := &dirNode{m: n.m, dir: node}
		a := ops.attr()
		n.m.putEntry(a, timeout, out)
		return n.NewInode(ctx, ops, gofs.StableAttr{Ino: a.Ino, Mode: syscall.S_IFDIR, Gen: firstGeneration})
	case *fsys.Image:
		a := node.Attr()
		if n.dir.HasDrafts(name) {
			timeout = 0 // for its writer the name means the draft
		}
		n.m.putEntry(a, timeout, out)
		ops := &imageNode{m: n.m, image: node, gen: n.m.opened.generation(a.Ino)}
		inode := n.NewInode(ctx, ops, gofs.StableAttr{Ino: a.Ino, Mode: syscall.S_IFREG, Gen: ops.gen})
		if known, ok := inode.Operations().(*imageNode); ok {
			known.nameless.Store(false) // the same image is back
			known.renamed.Store(false)
		}
		return inode
	default:
		// Whether the name means the draft or an image depends on the caller, and on time.
		a := node.Attr()
		n.m.putEntry(a, 0, out)
		ops := &draftNode{m: n.m, draft: node.(*fsys.Draft)}
		return n.NewInode(ctx, ops, gofs.StableAttr{Ino: a.Ino, Mode: syscall.S_IFREG, Gen: ops.draft.Generation()})
	}
}

// known returns the node that the kernel knows by a name; nil for none.
func (n *dirNode) known(name string) gofs.InodeEmbedder {
	child := n.GetChild(name)
	if child == nil {
		return nil
	}
	return child.Operations()
}

// Lookup tells the kernel what a name means, and for how long it may cache that. A
// notification during the lookup can be newer than its answer, and the kernel ignores it
// because it does not know the name yet; so the answer must not be cached then. Negative
// answers are never cached (decision 66).
func (n *dirNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	ctx, end := waitable(ctx)
	defer end()
	n.noteLookup()
	asked := n.notified.Load()
	node, err := n.lookup(ctx, name)
	switch {
	case errors.Is(err, backends.ErrNoVariant):
		return nil, n.refuse("lookup", name, err)
	case err != nil:
		return nil, n.m.fail("lookup", name, err)
	}
	child := n.child(ctx, name, node, out)
	if n.notified.Load() != asked {
		out.SetEntryTimeout(0) // a nanosecond would be a tick of the kernel, 4 ms and more
	}
	return child, 0
}

// lookup answers programs that only ask for sizes from the last listing where that is
// enough: "ls -l" of a hundred thousand images must not send as many requests.
func (n *dirNode) lookup(ctx context.Context, name string) (fsys.Node, error) {
	if img, ok := n.dir.LookupListed(name); ok && onlyAsksSizes(ctx) {
		return img, nil
	}
	return n.dir.Lookup(ctx, name, caller(ctx, n.dir.HasDrafts(name)))
}

func (n *dirNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	return n.m.getattr(n.attr(), false, out)
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
	return getxattr(n.xattrs, name, dest)
}

func (n *dirNode) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*gofs.Inode, gofs.FileHandle, uint32, syscall.Errno) {
	ctx, end := waitable(ctx)
	defer end()
	draft, file, err := n.dir.Create(ctx, name, fs.FileMode(mode)&fs.ModePerm, caller(ctx, true), flagsOf(flags))
	if err != nil {
		return nil, nil, 0, n.refuse("create", name, err)
	}
	n.m.counts.written.Add(1)
	child := n.child(ctx, name, draft, out)
	return child, &draftHandle{m: n.m, name: path.Join(n.Path(nil), name), file: file, open: n.m.files.add(ctx, child, true)}, 0, 0
}

func (n *dirNode) Mkdir(ctx context.Context, name string, _ uint32, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	ctx, end := waitable(ctx)
	defer end()
	dir, err := n.dir.Mkdir(ctx, name)
	if err != nil {
		return nil, n.refuse("mkdir", name, err)
	}
	return n.child(ctx, name, dir, out), 0
}

func (n *dirNode) Rmdir(ctx context.Context, name string) syscall.Errno {
	ctx, end := waitable(ctx)
	defer end()
	return n.refuse("rmdir", name, n.dir.Rmdir(ctx, name))
}

func (n *dirNode) Unlink(ctx context.Context, name string) syscall.Errno {
	ctx, end := waitable(ctx)
	defer end()
	file := n.known(name)
	err := n.dir.Unlink(ctx, name)
	if err == nil {
		markNameless(file)
	}
	return n.refuse("unlink", name, err)
}

// markNameless notes that a file, which can still be open, has no name any more.
func markNameless(file gofs.InodeEmbedder) {
	switch n := file.(type) {
	case *imageNode:
		n.nameless.Store(true)
	case *draftNode:
		n.nameless.Store(true)
	}
}

func (n *dirNode) Rename(ctx context.Context, name string, newParent gofs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	ctx, end := waitable(ctx)
	defer end()
	to, ok := newParent.(*dirNode)
	if !ok || flags&^unix.RENAME_NOREPLACE != 0 {
		return n.refuse("rename", name, errExchange)
	}
	file, replaced := n.known(name), to.known(newName)
	var how fsys.Flags
	if flags&unix.RENAME_NOREPLACE != 0 {
		how = fsys.Exclusive
	}
	err := n.dir.Rename(ctx, name, to.dir, newName, how)
	if err == nil && replaced != file {
		markNameless(replaced)
	}
	if image, ok := file.(*imageNode); ok && err == nil {
		image.renamed.Store(true)
	}
	return to.refuse("rename", newName, err)
}

// A registry has neither links nor devices.

func (n *dirNode) Link(_ context.Context, _ gofs.InodeEmbedder, name string, _ *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, n.refuse("link", name, errNoLinks)
}

func (n *dirNode) Symlink(_ context.Context, _, name string, _ *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, n.refuse("symlink", name, errNoLinks)
}

func (n *dirNode) Mknod(_ context.Context, name string, _, _ uint32, _ *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	return nil, n.refuse("mknod", name, errNoLinks)
}

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
const firstGeneration = 1
