// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
)

// WarmOptions say what Warm does beyond making an image whole.
type WarmOptions struct {
	// To is the file to keep a copy in; "" wants none. Its directories are made.
	// A copy that is there already stays; one that Warm wrote for an earlier
	// version is replaced.
	To     string `json:"to,omitempty"`
	Verify bool   `json:"verify,omitempty"` // read a copy that is there, or was written, and compare its digest
	Force  bool   `json:"force,omitempty"`  // replace a file that is no copy of ours
	Pin    bool   `json:"pin,omitempty"`    // keep it in the cache, also if fetching it fails now
}

// Warmed is what became of an image.
type Warmed struct {
	Image Record `json:"image"` // with the path of its file, or of the copy
	Here  bool   `json:"here"`  // nothing had to be done
}

// Warm makes an image whole and verified here before it is needed, and keeps a
// copy of it outside of the cache if o.To says so. After an interruption it does not fetch
// again what it had.
//
// Errors: those of Pull; fs.ErrExist if the file at Options.To is something else;
// backends.ErrCorrupt if the copy cannot be read back.
func (v *transfers) Warm(ctx context.Context, uri string, o WarmOptions, p catalog.Progress) (Warmed, error) {
	var w Warmed
	err := v.withImage(ctx, likeFile(uri, o.To), func(r catalog.Remote, img backends.Image) (err error) {
		w, err = v.warm(ctx, r, img, o, p)
		return err
	})
	return w, err
}

func (v *transfers) warm(ctx context.Context, r catalog.Remote, img backends.Image, o WarmOptions, p catalog.Progress) (w Warmed, err error) {
	if o.Pin && !r.InPlace(img) {
		if err := v.setPinOf(r, img, true); err != nil {
			return Warmed{}, err
		}
	}
	w = Warmed{Image: v.record(r.Name, img)}
	if o.To != "" {
		w.Image.Path = o.To
		w.Here, err = v.warmCopy(ctx, r, img, o, p)
	} else {
		w.Here = w.Image.State == cache.Cached
		err = v.fetchWhole(ctx, r, img, p, func(f *os.File) error {
			w.Image.Path = f.Name()
			return nil
		})
	}
	if err != nil {
		return Warmed{}, err
	}
	w.Image.State = v.cat.BlobInfo(r.Name, img).State
	return w, nil
}

// warmCopy makes a copy, unless it is there. An image whose copy is there is not
// fetched.
func (v *transfers) warmCopy(ctx context.Context, r catalog.Remote, img backends.Image, o WarmOptions, p catalog.Progress) (here bool, err error) {
	note := newCopyNote(r.Name, img)
	what, err := lookAtCopy(ctx, o.To, note, o.Verify)
	switch {
	case err != nil:
		return false, err
	case what == copyOfThis:
		return true, nil
	case what == somethingElse && !o.Force:
		return false, backends.Saying(fs.ErrExist, "%s is another file (--force replaces it)", o.To)
	}
	if err := makeParents(ctx, o.To); err != nil {
		return false, err
	}
	err = v.fetchWhole(ctx, r, img, p, func(f *os.File) error {
		return exportFile(ctx, cloneFile, f, PullOptions{To: o.To, Force: what != nothing}, note.mark)
	})
	if err != nil || !o.Verify || !note.checkable() {
		return false, err
	}
	if what, err = lookAtCopy(ctx, o.To, note, true); err == nil && what != copyOfThis {
		err = fmt.Errorf("%w: the copy at %s", backends.ErrCorrupt, o.To)
	}
	return false, err
}

// makeParents makes the directories of a file, with the permissions that the umask
// leaves.
func makeParents(ctx context.Context, path string) error {
	var missing []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			break
		}
		if err == nil {
			return backends.Saying(fs.ErrExist, "%s is not a directory", dir)
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return backends.DiskError("make "+dir, err)
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue // another process makes it too
		}
		var made fs.FileInfo
		if err == nil {
			made, err = os.Stat(missing[i])
		}
		if err == nil { // keep setgid, if its parent gave it that
			err = os.Chmod(missing[i], made.Mode()&fs.ModeSetgid|modeFor(ctx))
		}
		if err != nil {
			return backends.DiskError("make "+missing[i], err)
		}
	}
	return nil
}
