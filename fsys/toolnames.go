// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"fmt"

	"github.com/sregfs/sregfs/backends"
)

// A FindFunc returns the image that a file name means which another program has made, and
// its remote.
//
// Errors: fs.ErrNotExist; those of catalog.Lookup.
type FindFunc = func(ctx context.Context, name string) (remote string, img backends.Image, err error)

// A directory of Options.Finders stands in the root without being listed. Its names are those
// that another program computes for images: they are looked up, and nothing is listed. The
// files are the images themselves, with the inode numbers that they have elsewhere.

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
	return newImage(d.fs, remote, img), nil
}

// checkTakes refuses to put or remove something where no image can be.
//
// Errors: backends.ErrNotAllowed.
func (d *Dir) checkTakes() error {
	switch {
	case d.finder != "":
		return fmt.Errorf("%w: names in %s are only looked up; images are put into the directory of a remote", backends.ErrNotAllowed, d.finder)
	case d.remote == "":
		return fmt.Errorf("%w: only remotes stand here, and they are made in the configuration", backends.ErrNotAllowed)
	}
	return nil
}
