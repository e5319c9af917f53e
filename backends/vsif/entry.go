// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"archive/tar"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// A Kind is what an entry of a tree is.
type Kind byte

// The kinds of entries.
const (
	File Kind = iota + 1
	Directory
	Symlink
	HardLink
	FIFO
)

// An Entry is what counts of a header in the tar of a layer. Owners do not: all files
// belong to root, as in what an unprivileged user unpacks.
type Entry struct {
	Name    string // as it stands in the tar
	Kind    Kind
	Mode    uint16 // permissions, set-user-ID, set-group-ID and sticky bit, as chmod(2) takes them
	ModTime uint32 // seconds since 1970
	Link    string // of a Symlink: its text; of a HardLink: the name it is another one of
	Xattrs  []Xattr

	// Of a File: its size in bytes, and the offset of its bytes in the tar. Those of a
	// Sparse one do not stand there as they are read: its Offset is that of its first
	// header. They are among the expanded files,
	// without the blocks of BlockSize that are all zeros: Blocks has a bit for each other.
	Size   int64
	Offset int64
	Sparse bool
	Blocks []byte
}

// An Xattr is an extended attribute of the namespace "user.", which is not part of Name.
type Xattr struct{ Name, Value string }

const (
	userPrefix = "user."
	paxXattr   = "SCHILY.xattr." + userPrefix
)

// FromHeader returns what counts of a header whose content begins at an offset of the
// tar; ok is false for one that is no file of a tree. Device nodes are empty files, since
// an ordinary user cannot make others.
//
// Errors: [ErrLayer] for a header that no tree can have.
func FromHeader(h *tar.Header, offset int64) (e Entry, ok bool, err error) {
	e = Entry{Name: h.Name, Mode: mode(h.Mode), ModTime: seconds(h.ModTime)}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont:
		e.Kind, e.Size, e.Offset, e.Sparse = File, h.Size, offset, sparse(h)
	case tar.TypeGNUSparse:
		e.Kind, e.Size, e.Offset, e.Sparse = File, h.Size, offset, true
	case tar.TypeDir:
		e.Kind = Directory
	case tar.TypeSymlink:
		e.Kind, e.Link, e.Mode = Symlink, h.Linkname, 0o777
	case tar.TypeLink:
		e.Kind, e.Link = HardLink, h.Linkname
	case tar.TypeFifo:
		e.Kind = FIFO
	case tar.TypeChar, tar.TypeBlock:
		e.Kind = File
	case tar.TypeXGlobalHeader:
		return Entry{}, false, nil
	default:
		return Entry{}, false, fmt.Errorf("%w: %q is of the unknown type %q", ErrLayer, h.Name, h.Typeflag)
	}
	if e.Kind == File || e.Kind == Directory { // others can have none of this namespace (xattr(7))
		e.Xattrs = xattrs(h)
	}
	return e, true, e.check()
}

func (e *Entry) check() error {
	switch {
	case e.Size < 0:
		return fmt.Errorf("%w: %q is of %d bytes", ErrLayer, e.Name, e.Size)
	case strings.Contains(e.Name, "\x00") || strings.Contains(e.Link, "\x00"):
		return fmt.Errorf("%w: %q has a zero byte in its name", ErrLayer, e.Name)
	case e.Kind == Symlink && (e.Link == "" || len(e.Link) > maxLink):
		return fmt.Errorf("%w: %q is a symbolic link to a name of %d bytes", ErrLayer, e.Name, len(e.Link))
	}
	for _, x := range e.Xattrs {
		if len(x.Name) > maxName || len(x.Value) > maxXattr {
			return fmt.Errorf("%w: %q has an attribute of %d bytes", ErrLayer, e.Name, len(x.Value))
		}
	}
	return nil
}

// mode returns the bits of a header that chmod(2) takes.
func mode(bits int64) uint16 { return uint16(bits & 0o7777) } //nolint:gosec // 12 bits

// seconds cuts a time to what a squashfs has room for.
func seconds(t time.Time) uint32 {
	return uint32(min(max(t.Unix(), 0), 1<<32-1)) //nolint:gosec // cut
}

// sparse reports whether a header of a regular file is one of GNU tar's ways to leave out
// holes, in PAX records.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func xattrs(h *tar.Header) (all []Xattr) {
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		if name, ok := strings.CutPrefix(key, paxXattr); ok && name != "" {
			all = append(all, Xattr{name, h.PAXRecords[key]})
		}
	}
	return all
}

// clean returns a name of a tar as a path from the root, without a slash before it; "" is
// the root itself. ".." does not lead out.
func clean(name string) string { return path.Clean("/" + name)[1:] }
