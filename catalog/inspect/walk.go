// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
)

// A File is what the table of an image's file system says of one file. Its content is not
// looked at.
type File struct {
	Path     string    `json:"path"` // without a slash at the beginning
	Type     string    `json:"type"` // "file", "dir", "link", "block", "char", "pipe", "socket"
	Mode     uint16    `json:"mode"` // permissions, with setuid, setgid and sticky
	UID      uint32    `json:"uid"`
	GID      uint32    `json:"gid"`
	Size     int64     `json:"size"` // bytes, of a file
	Modified time.Time `json:"modified,omitzero"`
	Target   string    `json:"target,omitempty"` // of a link
	Device   uint32    `json:"device,omitempty"` // number
}

// ErrNoTable means that the files of an image cannot be listed without reading all of it.
var ErrNoTable = errors.New("it has no table of files that can be read")

// What a walk through an image takes at most.
const (
	maxFiles      = 4_000_000
	maxDepth      = 128
	maxWideDir    = 64 << 20 // bytes of one directory
	maxTargetSize = 4096     // PATH_MAX of Linux
)

// Files yields the files of an image, each directory before what is in it, in the order of
// ComparePaths. It reads the tables of a squashfs, alone or in a SIF, and no file. After an
// error the sequence ends.
//
// Errors: ErrNoTable for other formats; those of r; ctx's.
func Files(ctx context.Context, r io.ReaderAt, size int64) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		p := newPager(ctx, r, size)
		w := &walker{yield: yield}
		err := guard(func() error { return w.image(p) })
		if p.err != nil {
			err = p.err
		}
		if err != nil && !errors.Is(err, errWalked) {
			yield(File{}, err)
		}
	}
}

// ComparePaths compares two paths of Files part by part, as the tables are sorted.
func ComparePaths(a, b string) int {
	return strings.Compare(strings.ReplaceAll(a, "/", "\x00"), strings.ReplaceAll(b, "/", "\x00"))
}

// errWalked means that the caller of Files wants no more.
var errWalked = errors.New("enough")

type walker struct {
	*tree
	yield func(File, error) bool
	ids   []uint32 // of users and groups
	count int
}

func (w *walker) image(p *pager) error {
	head, err := p.bytes(0, min(p.size, headSize))
	if err != nil {
		return err
	}
	base, size := int64(0), p.size
	if off, bare := findSquashfs(head); bare {
		base, size = off, p.size-off
	} else {
		if !isSIF(head) {
			return ErrNoTable
		}
		img, err := loadSIF(p)
		if err != nil {
			return err
		}
		root, ok := rootFS(objects(img))
		if !ok {
			return fmt.Errorf("%w: the SIF has no squashfs", ErrNoTable)
		}
		base, size = root.Offset(), root.Size()
	}
	if w.tree, err = openTree(p, base, size); err != nil {
		return fmt.Errorf("%w: %w", ErrNoTable, err)
	}
	w.maxDir = maxWideDir
	if err := w.readIDs(); err != nil {
		return err
	}
	root, err := w.tree.inode(w.root)
	if err != nil {
		return err
	}
	return w.dir(root, "", 0)
}

// dir yields what is in a directory, and below.
func (w *walker) dir(dir *inode, path string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: directories of more than %d levels", errSquash, maxDepth)
	}
	var entries []entry
	if err := w.list(dir, func(e entry) bool { entries = append(entries, e); return true }); err != nil {
		return err
	}
	for _, e := range entries {
		if w.count++; w.count > maxFiles {
			return fmt.Errorf("%w: more than %d files", errSquash, maxFiles)
		}
		f, below, err := w.file(e.ref)
		if err != nil {
			return err
		}
		f.Path = path + text([]byte(e.name))
		if !w.yield(f, nil) {
			return errWalked
		}
		if below == nil {
			continue
		}
		if err := w.dir(below, f.Path+"/", depth+1); err != nil {
			return err
		}
	}
	return nil
}

// types are the kinds of inodes in words.
var types = [...]string{"", "dir", "file", "link", "block", "char", "pipe", "socket"}

// file reads an inode, and that of a directory for list, too.
func (w *walker) file(ref uint64) (f File, dir *inode, err error) {
	c := &cursor{w.tree, w.inodes + int64(ref>>16&(1<<32-1)), int(ref & 0xffff)}
	head, err := c.next(16)
	if err != nil {
		return f, nil, err
	}
	le := binary.LittleEndian
	kind := le.Uint16(head)
	long := kind > extended
	if long {
		kind -= extended
	}
	if kind == 0 || int(kind) >= len(types) {
		return f, nil, fmt.Errorf("%w: an inode of kind %d", errSquash, kind)
	}
	f = File{Type: types[kind], Mode: le.Uint16(head[2:]) & 0o7777, Modified: time.Unix(int64(le.Uint32(head[8:])), 0).UTC()}
	if f.UID, err = w.id(le.Uint16(head[4:])); err != nil {
		return f, nil, err
	}
	if f.GID, err = w.id(le.Uint16(head[6:])); err != nil {
		return f, nil, err
	}
	switch f.Type {
	case "dir":
		dir, err = w.tree.inode(ref)
	case "file":
		f.Size, err = fileSize(c, long)
	case "link":
		f.Target, err = linkTarget(c)
		f.Mode = 0 // it says nothing
	case "block", "char":
		var b []byte
		if b, err = c.next(8); err == nil {
			f.Device = le.Uint32(b[4:])
		}
	}
	return f, dir, err
}

func fileSize(c *cursor, long bool) (int64, error) {
	b, err := c.next(16)
	if err != nil {
		return 0, err
	}
	size := int64(binary.LittleEndian.Uint32(b[12:]))
	if long {
		size = int64(binary.LittleEndian.Uint64(b[8:]))
	}
	if size < 0 {
		return 0, fmt.Errorf("%w: a file of %d bytes", errSquash, size)
	}
	return size, nil
}

func linkTarget(c *cursor) (string, error) {
	b, err := c.next(8)
	if err != nil {
		return "", err
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > maxTargetSize {
		return "", fmt.Errorf("%w: a link of %d bytes", errSquash, n)
	}
	b, err = c.next(int(n))
	return text(b), err
}

// readIDs reads the table of users and groups: blocks of 2,048 numbers, at most 65,536.
func (w *walker) readIDs() error {
	head, err := w.p.bytes(w.base+26, 2)
	if err != nil {
		return err
	}
	const perBlock = metaBlock / 4
	for left := int(binary.LittleEndian.Uint16(head)); left > 0; {
		at, err := w.p.bytes(w.base+w.idTable+int64(len(w.ids)/perBlock)*8, 8)
		if err != nil {
			return err
		}
		block := binary.LittleEndian.Uint64(at)
		if block > uint64(w.used) {
			return fmt.Errorf("%w: table of ids at %d", errSquash, block)
		}
		n := min(left, perBlock)
		b, err := (&cursor{w.tree, int64(block), 0}).next(4 * n)
		if err != nil {
			return err
		}
		for four := range slices.Chunk(b, 4) {
			w.ids = append(w.ids, binary.LittleEndian.Uint32(four))
		}
		left -= n
	}
	return nil
}

func (w *walker) id(i uint16) (uint32, error) {
	if int(i) >= len(w.ids) {
		return 0, fmt.Errorf("%w: id %d of %d", errSquash, i, len(w.ids))
	}
	return w.ids[i], nil
}
