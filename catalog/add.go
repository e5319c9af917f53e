// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
)

// Add copies (by reflink where it can), or with move moves, the file at path
// into the local remote, which is also that of a uri without one. A uri of another
// remote is a Push, after which move removes the file.
//
// Errors: those of Push.
func (c *Catalog) Add(ctx context.Context, path, uri string, move, force bool, p Progress) (Record, error) {
	r, ref, err := c.resolve(ctx, uri, localRemote, false)
	if err != nil {
		return Record{}, err
	}
	// A file that is given away may be linked into the store, which with the
	// removal below makes the move a rename. Of a symbolic link only the link goes.
	info, err := os.Lstat(path)
	give := move && err == nil && info.Mode().IsRegular()
	rec, err := c.pushFile(ctx, r, ref, pushOptions{path: path, force: force, give: give, progress: p})
	if err != nil || !move || sameName(path, rec.Path) {
		return rec, err
	}
	if err := os.Remove(path); err != nil {
		return rec, backends.DiskError(rec.URI+" was added, but the file stays", err)
	}
	return rec, nil
}

// sameName reports whether both lead to one directory entry, which must not be
// removed then; two hard links to one file are not that.
func sameName(a, b string) bool {
	realA, errA := filepath.EvalSymlinks(a)
	realB, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && realA == realB
}
