// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	maxName    = 255       // bytes of a name, as everywhere
	maxLink    = 4095      // bytes of the text of a symbolic link
	maxXattr   = 64 << 10  // bytes of the value of an extended attribute
	maxNodes   = 1_000_000 // of a tree: its tables and this tree are held in memory
	maxDepth   = 2048      // of directories: a path of 4 KiB
	maxFollows = 255       // symbolic links on one path (filepath-securejoin)

	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	reserved = ".wh..wh." // what aufs kept for itself
)

// A Tree is the directory tree that layers come to when they are unpacked one over the
// other, as umoci does it for Apptainer. The zero value is not ready: see [NewTree]. It
// is not safe for concurrent use.
type Tree struct {
	root  *node
	layer int // the one that is being added
	nodes int // that were made
}

// A node is a name in the tree.
type node struct {
	*inode
	name   string
	parent *node // nil for the root
	depth  int
	layer  int // the last that has an entry of it or of something below it
}

// An inode is a file, a directory, or whatever else: several nodes have one if they are
// hard links of each other.
type inode struct {
	kind     Kind
	mode     uint16
	modTime  uint32
	size     int64
	layer    int   // whose tar has the bytes of a file
	offset   int64 // in that tar; of a sparse file where the expanded one stands in the partition
	sparse   bool
	blocks   []byte // of a sparse file
	text     []byte // of a file that no layer has
	target   string // of a symbolic link
	xattrs   []Xattr
	children map[string]*node // of a directory
	links    int              // nodes that have it

	number  uint32 // in the file system; 0 until it has one
	at      ref    // in the inode table; valid once written
	written bool
}

// NewTree returns a tree that is empty but for its root.
func NewTree() *Tree {
	return &Tree{root: &node{inode: newDirectory(), layer: -1}, nodes: 1}
}

// newDirectory returns a directory as it is if no tar tells more of it.
func newDirectory() *inode { return &inode{kind: Directory, mode: 0o755} }

// Add adds the entries of the next layer, in their order.
//
// Errors: [ErrLayer] if unpacking would fail, or has no one result. The tree is
// of no use then.
func (t *Tree) Add(entries []Entry) error {
	for i := range entries {
		if err := t.add(&entries[i]); err != nil {
			return err
		}
	}
	t.layer++
	return nil
}

func (t *Tree) add(e *Entry) error {
	dir, name := splitPath(clean(e.Name))
	if name == "" {
		if e.Kind != Directory {
			return fmt.Errorf("%w: its root is no directory", ErrLayer)
		}
		t.root.describe(e)
		return nil
	}
	if strings.HasPrefix(name, whiteout) && !strings.HasPrefix(name, reserved) || name == opaque {
		return t.whiteOut(dir, name)
	}
	if strings.HasPrefix(name, reserved) || strings.HasPrefix(dir, whiteout) || strings.Contains(dir, "/"+whiteout) {
		return nil // no name that a tree can have
	}
	if len(name) > maxName {
		return fmt.Errorf("%w: a name of %d bytes", ErrLayer, len(name))
	}
	parent, err := t.makeDir(dir, e.Name)
	if err != nil {
		return err
	}
	return t.put(parent, name, e)
}

// splitPath splits a clean path into a directory, "" for the root, and a name.
func splitPath(p string) (dir, name string) {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i], p[i+1:]
	}
	return "", p
}

// put gives an entry its name in a directory.
func (t *Tree) put(parent *node, name string, e *Entry) error {
	old := parent.children[name]
	if e.Kind == Directory && old != nil && old.kind == Directory {
		old.describe(e)
		t.touch(old)
		return nil
	}
	var in *inode
	if t.remove(old); e.Kind == HardLink {
		target, err := t.linked(e)
		if err != nil {
			return err
		}
		in = target
	} else {
		in = &inode{kind: e.Kind, layer: t.layer, size: e.Size, offset: e.Offset, sparse: e.Sparse, blocks: e.Blocks, target: e.Link}
		in.describe(e)
	}
	return t.link(parent, name, in)
}

// describe gives an inode what an entry says besides its bytes.
func (in *inode) describe(e *Entry) { in.mode, in.modTime, in.xattrs = e.Mode, e.ModTime, e.Xattrs }

// link makes a node of a name that is free.
func (t *Tree) link(parent *node, name string, in *inode) error {
	if t.nodes++; t.nodes > maxNodes {
		return fmt.Errorf("%w: more than %d files", ErrLayer, maxNodes)
	}
	if parent.depth == maxDepth {
		return fmt.Errorf("%w: directories %d deep", ErrLayer, maxDepth)
	}
	if parent.children == nil {
		parent.children = make(map[string]*node)
	}
	n := &node{inode: in, name: name, parent: parent, depth: parent.depth + 1}
	parent.children[name] = n
	in.links++
	t.touch(n)
	return nil
}

// touch notes that the layer has n, and so what it stands in.
func (t *Tree) touch(n *node) {
	for ; n != nil; n = n.parent {
		n.layer = t.layer
	}
}

// remove takes a node, if it is one, and all below it out of the tree.
func (t *Tree) remove(n *node) {
	if n == nil {
		return
	}
	for _, child := range n.children {
		t.remove(child)
	}
	n.links--
	t.nodes--
	delete(n.parent.children, n.name)
}

// linked returns what a hard link is another name of: a symbolic link itself, if it is one.
func (t *Tree) linked(e *Entry) (*inode, error) {
	dir, name := splitPath(clean(e.Link))
	at, missing, err := t.follow(dir)
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 || name == "" || at.children[name] == nil {
		return nil, fmt.Errorf("%w: %q is a link to %q, which is not there", ErrLayer, e.Name, e.Link)
	}
	if target := at.children[name]; target.kind != Directory {
		return target.inode, nil
	}
	return nil, fmt.Errorf("%w: %q is a hard link to the directory %q", ErrLayer, e.Name, e.Link)
}

// whiteOut removes what lower layers have under the name that a whiteout hides.
func (t *Tree) whiteOut(dir, name string) error {
	at, missing, err := t.follow(dir)
	if err != nil || len(missing) > 0 { // nothing is there
		return err
	}
	if name == opaque {
		for _, child := range at.children {
			t.hide(child)
		}
		return nil
	}
	if child := at.children[name[len(whiteout):]]; child != nil {
		t.hide(child)
	}
	return nil
}

// hide removes a node unless the layer has it: then what it does not have below it.
func (t *Tree) hide(n *node) {
	if n.layer != t.layer {
		t.remove(n)
		return
	}
	for _, child := range n.children {
		t.hide(child)
	}
}

// makeDir returns a directory by its path, and makes what is missing of it.
func (t *Tree) makeDir(dir, who string) (*node, error) {
	at, missing, err := t.follow(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %q stands in a circle of symbolic links", ErrLayer, who)
	}
	if at.kind != Directory {
		return nil, fmt.Errorf("%w: %q stands in a file", ErrLayer, who)
	}
	for _, name := range missing {
		if len(name) > maxName {
			return nil, fmt.Errorf("%w: a name of %d bytes", ErrLayer, len(name))
		}
		if err := t.link(at, name, newDirectory()); err != nil {
			return nil, err
		}
		at = at.children[name]
	}
	return at, nil
}

// follow goes to a path, through symbolic links, and never out of the root: as far as
// there is something, and returns the names that are missing then. What it ends at is no
// directory if the path leads through a file.
//
// Errors: ErrLayer for a circle of links.
func (t *Tree) follow(path string) (at *node, missing []string, err error) {
	at = t.root
	links := 0
	for path != "" {
		var name string
		name, path, _ = strings.Cut(path, "/")
		switch {
		case name == "" || name == ".":
			continue
		case name == ".." && len(missing) > 0:
			missing = missing[:len(missing)-1]
			continue
		case name == "..":
			if at.parent != nil {
				at = at.parent
			}
			continue
		}
		child := at.children[name]
		if len(missing) > 0 || child == nil {
			missing = append(missing, name)
			continue
		}
		if child.kind != Symlink {
			at = child
			continue
		}
		if links++; links > maxFollows {
			return nil, nil, fmt.Errorf("%w: a circle of symbolic links", ErrLayer)
		}
		if strings.HasPrefix(child.target, "/") {
			at, missing = t.root, nil
		}
		path = child.target + "/" + path
	}
	return at, missing, nil
}

// sorted returns the children of a directory in the order of a squashfs.
func (n *node) sorted() []*node {
	all := make([]*node, 0, len(n.children))
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		all = append(all, n.children[name])
	}
	return all
}
