// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// Stat implements backends.Backend. As Version it takes what it gives, the
// version that a file's name tells, or a digest.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	v := c.view()
	defer v.Close()
	f, err := v.find(ctx, ref)
	if errors.Is(err, fs.ErrNotExist) {
		return c.statRecorded(ctx, v, ref)
	}
	if err != nil {
		return backends.Image{}, err
	}
	img := v.describe(f, v.digest(f))
	return labelled(img, v.abs(f.dir, f.base), v.records.image(ctx, f.ref.Collection, f.ref.Name)), nil
}

// Open implements backends.Backend.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("%w: negative offset", fs.ErrInvalid)
	}
	f, err := c.OpenFile(ctx, img)
	if errors.Is(err, errors.ErrUnsupported) && n != 0 {
		return c.urls.open(ctx, img, off, n)
	}
	if err != nil {
		return nil, err
	}
	if n == 0 {
		f.Close()
		return http.NoBody, nil
	}
	if n < 0 {
		n = max(img.Size-off, 0)
	}
	return &body{SectionReader: io.NewSectionReader(f, off, n), file: f, version: img.Version}, nil
}

// OpenFile implements backends.FileOpener.
func (c *client) OpenFile(ctx context.Context, img backends.Image) (*os.File, error) {
	v := c.view()
	defer v.Close()
	ref := img.Ref
	ref.Version = img.Version
	found, err := v.find(ctx, ref)
	if errors.Is(err, fs.ErrNotExist) {
		ref.Version = ""
		if _, other := v.find(ctx, ref); other == nil {
			return nil, backends.ErrChanged
		}
		return c.openRecorded(ctx, v, img)
	}
	if err != nil {
		return nil, err
	}
	looked := time.Now()
	f, err := v.openImage(found)
	if err != nil {
		return nil, localError(err)
	}
	info, err := f.Stat()
	if err != nil || versionOf(info) != img.Version {
		f.Close()
		return nil, backends.ErrChanged
	}
	if err := checkImage(f); err != nil {
		f.Close()
		if backends.IsPlain(found.format) && errors.Is(err, backends.ErrNotImage) {
			v.digests.add(fileStateOf(info), looked, noImage)
		}
		return nil, localError(err)
	}
	return f, nil
}

// A body is a range of an image. It ends with ErrChanged if somebody wrote to
// the file meanwhile.
type body struct {
	*io.SectionReader
	file    *os.File
	version string
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.SectionReader.Read(p)
	if err == nil || !errors.Is(err, io.EOF) {
		return n, localError(err)
	}
	if info, statErr := b.file.Stat(); statErr != nil || versionOf(info) != b.version {
		return n, backends.ErrChanged
	}
	return n, io.EOF
}

func (b *body) Close() error { return b.file.Close() }

// versionOf is what Version is made of: another size, time or inode means other
// bytes. It needs no reading, and a copy that replaces a file changes it.
func versionOf(info fs.FileInfo) string {
	b := strconv.AppendInt(make([]byte, 0, 48), info.Size(), 16)
	b = strconv.AppendInt(append(b, '-'), info.ModTime().UnixNano(), 16)
	return string(strconv.AppendUint(append(b, '-'), inode(info), 16))
}

var errOutside = fmt.Errorf("%w: a link leads out of the store", fs.ErrPermission)

// maxLinks is how many links in a row are followed, as in the kernel.
const maxLinks = 40

// target returns what the links at name lead to: its name, below the store too.
// An absolute link may lead into the store.
// Errors: errOutside; those of os.Root.
func (v *view) target(name string) (string, fs.FileInfo, error) {
	root, err := v.root()
	if err != nil {
		return "", nil, err
	}
	for range maxLinks {
		info, err := root.Lstat(fromSlash(name))
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return name, info, err
		}
		to, err := root.Readlink(fromSlash(name))
		if err != nil {
			return "", nil, err
		}
		if filepath.IsAbs(to) {
			to = v.relative(to)
		} else {
			to = filepath.Join(fromSlash(path.Dir(name)), to)
		}
		if !filepath.IsLocal(to) {
			return "", nil, fmt.Errorf("%w: %s", errOutside, name)
		}
		name = filepath.ToSlash(to)
	}
	return "", nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
}

// relative makes an absolute path one below the store, by whichever of the
// store's names it begins with; "" if it begins with none.
func (v *view) relative(abs string) string {
	real, err := filepath.EvalSymlinks(v.path)
	if err != nil {
		return ""
	}
	for _, base := range []string{v.path, real} {
		if rel, err := filepath.Rel(base, abs); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return ""
}

// openImage opens the file of f, or what its link leads to.
func (v *view) openImage(f file) (*os.File, error) {
	name, _, err := v.target(join(f.dir, f.base))
	if err != nil {
		return nil, err
	}
	root, err := v.root()
	if err != nil {
		return nil, err
	}
	return backends.Regular(root.OpenFile(fromSlash(name), os.O_RDONLY|backends.NoWait, 0))
}

// openDir opens a directory, and nothing else that has come in its place.
func openDir(root *os.Root, dir string) (*os.File, error) {
	return root.OpenFile(fromSlash(dir), os.O_RDONLY|directory|backends.NoWait, 0)
}

// syncDir makes the names in dir durable.
func (t *tree) syncDir(dir string) error {
	d, err := openDir(t.Root, dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return disk.SyncOpenDir(d)
}

// checkImage returns backends.ErrNotImage unless f begins as an image does. What
// versions of the sregistry client stored are SIF; squashfs, as Singularity 2.4
// made it, and ext3, as those before did, each with or without a launch line.
func checkImage(f *os.File) error {
	head := make([]byte, backends.SniffSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if backends.Sniff(head[:n]) == "" {
		return fmt.Errorf("%w: %s begins neither as SIF nor as squashfs nor as ext3", backends.ErrNotImage, f.Name())
	}
	return nil
}
