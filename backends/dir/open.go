// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// Who may write to the store may not thereby have this process, which may be
// root's and serve everybody, read a file to him that he cannot read himself. So
// nothing is opened but below the store, no link leads out of it, and what is
// no image is not given out. A hard link to another's file is the kernel's
// business: fs.protected_hardlinks.

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
