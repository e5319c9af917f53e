// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"fmt"
	"strconv"

	"github.com/sregfs/sregfs/backends"
)

// A FindFunc returns the image that a file name means which another program has made, and
// its remote.
//
// Errors: fs.ErrNotExist; those of catalog.Lookup.
type FindFunc = func(ctx context.Context, name string) (remote string, img backends.Image, err error)

// A directory of Options.Finders stands in the root without being listed. Its names are those
// that another program computes for images: they are looked up, and nothing is listed. The
// files are other inodes than those of the images in the directories of remotes: they cannot
// be written to, whatever the remote allows, as no draft would have their name.

// finder returns the directory of that name in the root; nil if there is none.
func (f *FS) finder(name string) *Dir {
	if f.opts.Finders[name] == nil {
		return nil
	}
	return &Dir{fs: f, finder: name}
}

// find is Lookup in such a directory.
func (d *Dir) find(ctx context.Context, name string) (Node, error) {
	if len(name) > MaxName {
		return nil, ErrNameTooLong
	}
	remote, img, err := d.fs.opts.Finders[d.finder](ctx, name)
	if err != nil {
		return nil, err
	}
	i := newImage(d.fs, remote, img)
	i.found, i.ino = true, inode("found", strconv.FormatUint(i.ino, 10))
	return i, nil
}

// errFound is why nothing can be written there.
var errFound = fmt.Errorf("%w: names that another program has made are only looked up; images are put into the directory of a remote", backends.ErrNotAllowed)

// checkTakes refuses to put or remove something where no image can be.
//
// Errors: backends.ErrNotAllowed.
func (d *Dir) checkTakes() error {
	switch {
	case d.finder != "":
		return errFound
	case d.remote == "":
		return fmt.Errorf("%w: only remotes stand here, and they are made in the configuration", backends.ErrNotAllowed)
	}
	return nil
}
