// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// A copyNote says which bytes a copy holds. It is kept in an extended attribute
// of the file, with the time that the file had then: a copy that was not written to
// since need not be read again. Without such attributes it is read.
type copyNote struct {
	key      cache.Key
	digest   string
	size     int64
	modified time.Time // given to the file, as the mount shows it; may be zero
}

const copyAttr = "user.sreg.copy"

func newCopyNote(remote string, img backends.Image) copyNote {
	return copyNote{key: cache.KeyOf(remote, img), digest: img.Digest, size: img.Size, modified: img.Modified}
}

// text is the note for a file with this size and time.
func (n copyNote) text(info os.FileInfo) string { return noteText(n.key, info) }

func noteText(key cache.Key, info os.FileInfo) string {
	return fmt.Sprintf("%s %d %d", key, info.Size(), info.ModTime().UnixNano())
}

// mark writes the note on a complete copy.
func (n copyNote) mark(f *os.File) error {
	if !n.modified.IsZero() {
		if err := os.Chtimes(f.Name(), n.modified, n.modified); err != nil {
			return err
		}
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_ = setAttr(f, copyAttr, n.text(info)) // without it the copy is only read again
	return nil
}

// What is found at the name of a copy.
type copyState int

const (
	nothing       copyState = iota
	copyOfThis              // of the image
	copyOfOther             // of what it was before, or a damaged copy
	somethingElse           // a file that we did not write
)

// lookAtCopy returns what is at path; with verify it trusts no note.
// Errors: those of the local disk; ctx's.
func lookAtCopy(ctx context.Context, path string, n copyNote, verify bool) (copyState, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nothing, nil
	case err != nil:
		return nothing, backends.DiskError("look at "+path, err)
	case !info.Mode().IsRegular():
		return somethingElse, nil
	}
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if err != nil {
		return nothing, backends.DiskError("read "+path, err)
	}
	defer f.Close()
	note := attr(f, copyAttr)
	key, _, _ := strings.Cut(note, " ")
	noted := note != "" && note == noteText(cache.Key(key), info)
	sized := n.size < 0 || n.size == info.Size()
	switch {
	case noted && sized && cache.Key(key) == n.key && (!verify || !n.checkable()):
		return copyOfThis, nil
	case sized && n.checkable():
		same, err := n.matches(ctx, f)
		if err != nil || same {
			return copyOfThis, err
		}
	case sized && !n.modified.IsZero() && info.ModTime().Unix() == n.modified.Unix():
		return copyOfThis, nil // there is no better evidence
	}
	if noted {
		return copyOfOther, nil
	}
	return somethingElse, nil
}

// checkable reports whether the bytes can be compared with a digest.
func (n copyNote) checkable() bool { return strings.HasPrefix(n.digest, index.SHA256Prefix) }

// matches reads all of a copy, and notes it if it is one.
func (n copyNote) matches(ctx context.Context, f *os.File) (bool, error) {
	got, err := uploads.Digest(ctx, f)
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case err != nil:
		return false, backends.DiskError("read "+f.Name(), err)
	case got != n.digest:
		return false, nil
	}
	if info, err := f.Stat(); err == nil {
		_ = setAttr(f, copyAttr, n.text(info))
	}
	return true, nil
}
