// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/sregfs/sregfs/cache"
)

// IO returns the tree for reading, as [fs.ReadFile], [fs.WalkDir] and the like take it.
// Its files are *io.SectionReader too, and only the ranges that are read are fetched.
// Drafts are not in it. When ctx ends, calls that wait return its error.
func (f *FS) IO(ctx context.Context) fs.FS { return ioFS{ctx, f} }

// An ioFS implements fs.FS.
type ioFS struct {
	ctx  context.Context //nolint:containedctx // the methods of io/fs have none
	tree *FS
}

var _ fs.StatFS = ioFS{}

// Open implements fs.FS.
func (f ioFS) Open(name string) (fs.File, error) {
	file, err := f.open(name)
	if errors.Is(err, ErrRetry) {
		file, err = f.open(name) // the tag means another version by now
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

func (f ioFS) open(name string) (fs.File, error) {
	node, err := f.find(name)
	if err != nil {
		return nil, err
	}
	info := ioInfo{base(name), node.Attr()}
	image, ok := node.(*Image)
	if !ok {
		dir := node.(*Dir) //nolint:forcetypeassert // find returns nothing else
		return &ioDir{ioInfo: info, fs: f, listing: dir.OpenListing()}, nil
	}
	blob, err := image.Open(f.ctx)
	if err != nil {
		return nil, err
	}
	info.attr.Size = blob.Size()
	return &ioFile{io.NewSectionReader(ioBlob{f.ctx, blob}, 0, blob.Size()), info, blob}, nil
}

// Stat implements fs.StatFS. It fetches no bytes, except of an image whose registry does
// not tell its size.
func (f ioFS) Stat(name string) (fs.FileInfo, error) {
	node, err := f.find(name)
	if err == nil {
		err = f.measure(node)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return ioInfo{base(name), node.Attr()}, nil
}

func (f ioFS) measure(node Node) error {
	if image, ok := node.(*Image); ok {
		return image.LearnSize(f.ctx)
	}
	return nil
}

// find returns the *Dir or *Image of that path.
func (f ioFS) find(name string) (Node, error) {
	if !fs.ValidPath(name) {
		return nil, fs.ErrInvalid
	}
	var node Node = f.tree.Root()
	if name == "." {
		return node, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		dir, ok := node.(*Dir)
		if !ok {
			return nil, fs.ErrNotExist
		}
		var err error
		if node, err = dir.Lookup(f.ctx, part, Caller{}); err != nil {
			return nil, err
		}
	}
	if _, ok := node.(*Draft); ok {
		return nil, fs.ErrNotExist
	}
	return node, nil
}

func base(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// An ioInfo is an fs.FileInfo and an fs.DirEntry.
type ioInfo struct {
	name string
	attr Attr
}

func (i ioInfo) Name() string               { return i.name }
func (i ioInfo) Size() int64                { return i.attr.Size }
func (i ioInfo) Mode() fs.FileMode          { return i.attr.Mode }
func (i ioInfo) ModTime() time.Time         { return i.attr.ModTime }
func (i ioInfo) IsDir() bool                { return i.attr.Mode.IsDir() }
func (i ioInfo) Sys() any                   { return nil }
func (i ioInfo) Stat() (fs.FileInfo, error) { return i, nil }

// An ioFile is an image that is open.
type ioFile struct {
	*io.SectionReader
	ioInfo
	blob *cache.Blob
}

// Size implements fs.FileInfo and io.SectionReader alike.
func (f *ioFile) Size() int64 { return f.SectionReader.Size() }

// Close implements fs.File.
func (f *ioFile) Close() error { return f.blob.Close() }

// An ioBlob reads a blob as long as ctx lasts.
type ioBlob struct {
	ctx  context.Context //nolint:containedctx // io.ReaderAt has none
	blob *cache.Blob
}

func (b ioBlob) ReadAt(p []byte, off int64) (int, error) { return b.blob.ReadAtContext(b.ctx, p, off) }

// An ioDir is a directory that is open.
type ioDir struct {
	ioInfo
	fs      ioFS
	listing *Listing
}

var _ fs.ReadDirFile = (*ioDir)(nil)

// Read implements fs.File.
func (d *ioDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.name, Err: ErrIsDir}
}

// Close implements fs.File.
func (d *ioDir) Close() error {
	d.listing.Close()
	return nil
}

// ReadDir implements fs.ReadDirFile.
func (d *ioDir) ReadDir(n int) ([]fs.DirEntry, error) {
	var all []fs.DirEntry
	for n <= 0 || len(all) < n {
		e, err := d.listing.Next(d.fs.ctx)
		if err != nil {
			return all, &fs.PathError{Op: "readdir", Path: d.name, Err: err}
		}
		if e == nil {
			break
		}
		if e.draft == nil && e.tool == nil {
			all = append(all, ioEntry{d, *e})
		}
	}
	if n > 0 && len(all) == 0 {
		return nil, io.EOF
	}
	return all, nil
}

// An ioEntry is an fs.DirEntry. Info asks the registry if the listing told the image's
// name alone.
type ioEntry struct {
	in    *ioDir
	entry Entry
}

func (e ioEntry) Name() string { return e.entry.Name }
func (e ioEntry) IsDir() bool  { return e.entry.Dir }

// Type implements fs.DirEntry.
func (e ioEntry) Type() fs.FileMode {
	if e.entry.Dir {
		return fs.ModeDir
	}
	return 0
}

// Info implements fs.DirEntry.
func (e ioEntry) Info() (fs.FileInfo, error) {
	node := e.entry.Node()
	if node == nil {
		var err error
		if node, err = e.in.listing.dir.Lookup(e.in.fs.ctx, e.entry.Name, Caller{}); err != nil {
			return nil, &fs.PathError{Op: "stat", Path: e.entry.Name, Err: err}
		}
	}
	if err := e.in.fs.measure(node); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: e.entry.Name, Err: err}
	}
	return ioInfo{e.entry.Name, node.Attr()}, nil
}
