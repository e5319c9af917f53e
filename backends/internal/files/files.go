// SPDX-License-Identifier: Apache-2.0

// Package files makes a backend of a service that keeps files under paths: buckets, folders on a
// drive, WebDAV. It knows which path an image has and which image a path is, which of several
// files a name means, and what a push, a removal, a move and a copy have to look at first. It
// sends no request itself: that is a [Store], the protocol of one service.
//
// Begin with [Store], then name.go for the paths. A backend embeds a [Reader] and, as far as its
// service goes, a [Pusher], a [Mover] and a [Copier]:
//
//	type client struct {
//		*files.Reader
//		*files.Pusher
//	}
package files

import (
	"context"
	"io"
	"iter"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A File is what a service tells of one file or folder.
type File struct {
	Path     string // below the root, "/" between parts, as the service spells it; no slash at either end
	Folder   bool
	Size     int64     // bytes; -1 if it is not known
	Version  string    // another one for other bytes; "" if a listing does not tell it
	Digest   string    // as in backends.Image; "" if the service keeps none, or a listing does not tell it
	Format   string    // one of backends.Formats, if the service keeps it; "" lets the extension tell
	Modified time.Time // as in backends.Image
	URL      string    // where a person would look at it; may be ""
	ID       string    // the service's own handle, where it has ids
	Older    bool      // the path means another version now
}

// A Store is the protocol of one service. Its methods may be called from many goroutines at
// once, and return the errors of the methods of a backend that they are named like.
type Store interface {
	// Stat returns the file at a path. A folder is fs.ErrNotExist.
	Stat(ctx context.Context, path string) (File, error)

	// Open reads as backends.Backend's Open does: exactly f.Version, or backends.ErrChanged.
	Open(ctx context.Context, f File, off, n int64) (io.ReadCloser, error)

	// List yields what lies directly in a folder, "" being the root, and whose last part begins with
	// prefix; where the service cannot choose, the rest too. The order is any.
	//
	// Errors: those of backends.Lister; fs.ErrNotExist for a folder that is not there.
	List(ctx context.Context, folder, prefix string) iter.Seq2[File, error]
}

// A Writer is a Store that changes files.
type Writer interface {
	Store

	// Put makes path the bytes of src, all or nothing, and makes the folders that are missing. It
	// asks src.MayCommit right before the request that does so. old is the version that is
	// replaced; with "" there must be none, with backends.ReplaceAny it does not matter.
	//
	// Errors: those of backends.Pusher.
	Put(ctx context.Context, path string, src backends.Source, old string) (File, error)

	// Remove removes the file, if it is still f.Version.
	//
	// Errors: backends.ErrChanged if not; fs.ErrNotExist if it is gone.
	Remove(ctx context.Context, f File) error
}

// A Duplicator is a Writer whose service copies a file by itself.
type Duplicator interface {
	Writer

	// Duplicate makes path the bytes of f, as Put would, provided that f still is f.Version.
	//
	// Errors: those of Put; errors.ErrUnsupported if this file has to travel.
	Duplicate(ctx context.Context, f File, path, old string, commit func() error) (File, error)
}

// A Renamer is a Writer whose service gives a file another path by itself.
type Renamer interface {
	Writer

	// Rename makes path the bytes of f and takes them from f.Path, at once, provided that f still
	// is f.Version. old is as in Put.
	//
	// Errors: those of Put; errors.ErrUnsupported.
	Rename(ctx context.Context, f File, path, old string) (File, error)
}

// A VersionKeeper is a Store that keeps versions of a file that were replaced.
type VersionKeeper interface {
	// StatVersion returns that version of the file at a path.
	//
	// Errors: those of Stat; fs.ErrNotExist also for what cannot be a version.
	StatVersion(ctx context.Context, path, version string) (File, error)
}

// A Layout is what a service makes of paths.
type Layout struct {
	MaxPart, MaxPath int // bytes of one part and of a whole path; 0 means 255 and 1024

	// Escape, if not nil, escapes in a part what the service takes no name with. It gets what
	// backends.EscapePart has made, and backends.UnescapePart is its inverse.
	Escape func(part string) string
}
