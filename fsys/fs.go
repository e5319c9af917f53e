// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// Options tune a tree. The zero value has the defaults.
type Options struct {
	ReadOnly bool // nothing can be written, whatever the remotes allow
	Names    Names
	GID      uint32 // group of the files where they are shown
	OpenWait bool   // Image.Open returns only when the image is whole and verified here
	// Disk is a directory on the disk that statfs(2) answers from, normally the
	// cache's. "" means the temporary directory's.
	Disk string
	// Finders are directories in the root, by name, in which names that other programs make
	// are looked up; they begin with a dot.
	Finders map[string]FindFunc
	Log     *slog.Logger
}

// An FS is the tree. All methods, and those of its nodes, may be called from
// many goroutines at once. It starts none, and needs no closing: drafts that are
// open when the program ends stay in the spool.
type FS struct {
	cat     *catalog.Catalog
	uploads *uploads.Uploads
	opts    Options
	started time.Time
	seed    maphash.Seed // of the offsets in directories

	mu       sync.Mutex            // guards the fields below
	drafts   map[location][]*Draft // those of one image are written side by side; the newest is the last
	toolDirs map[location]struct{}
	watchers map[int]func(Change)
	watched  int
}

// Root returns the directory that holds one directory for each remote.
func (f *FS) Root() *Dir { return &Dir{fs: f} }

// Disk returns Options.Disk.
func (f *FS) Disk() string { return f.opts.Disk }

// writable reports whether images can be pushed to a remote at all.
func (f *FS) canPush(r catalog.Remote) bool {
	return !f.opts.ReadOnly && !r.Policy.ReadOnly && r.Client != nil && r.Client.Caps().Has(backends.CanPush)
}

// remote returns a remote that can be asked, or why it cannot.
func (f *FS) remote(name string) (catalog.Remote, error) {
	r, err := f.cat.Remote(name)
	if err == nil && r.Client == nil {
		err = r.Err
	}
	return r, err
}

// writableRemote is remote, and refuses if it takes no writes.
func (f *FS) writableRemote(name string) (catalog.Remote, error) {
	r, err := f.remote(name)
	switch {
	case err != nil || f.canPush(r):
	case f.opts.ReadOnly:
		err = fmt.Errorf("%w: the mount is (--read-only)", backends.ErrReadOnly)
	case r.ByHost:
		err = r.ReadOnly()
	case r.Policy.ReadOnly:
		err = fmt.Errorf("%w: remote %s is (read_only)", backends.ErrReadOnly, name)
	default:
		err = fmt.Errorf("%w: remote %s, of type %s, takes no images", backends.ErrReadOnly, name, r.Type)
	}
	return r, err
}

// Flags qualify an operation as the flags of its system call do. Zero has none: a file
// is opened for reading.
type Flags uint8

// What Flags can be.
const (
	Write     Flags = 1 << iota // O_WRONLY or O_RDWR
	Truncate                    // O_TRUNC
	Exclusive                   // O_EXCL, RENAME_NOREPLACE: the new name must be free
)

func (f Flags) has(flag Flags) bool { return f&flag != 0 }

// A Caller is who makes a request. Zero fields are not known.
type Caller struct {
	Thread  uint32
	Process uint32
}

// A Dir is a directory: the root (no Remote), a remote's top (no Collection), a
// collection, or one that a tool made below it (tooldir.go). It has no state.
type Dir struct {
	fs         *FS
	remote     string
	collection string
	tool       string // path of a tool's directory, below the collection
	finder     string // name of a directory of Options.Finders, which has no remote
}

// Remote returns the name of the remote, "" for the root.
func (d *Dir) Remote() string { return d.remote }

// Collection returns the full path of the collection, "" at a remote's top.
func (d *Dir) Collection() string { return d.collection }

// Same reports whether d and other stand for the same directory.
func (d *Dir) Same(other *Dir) bool {
	return d.remote == other.remote && d.collection == other.collection && d.tool == other.tool && d.finder == other.finder
}

func (d *Dir) ino() uint64 {
	switch {
	case d.finder != "":
		return inode("finder", d.finder)
	case d.remote == "":
		return 1
	}
	if d.tool != "" {
		return inode("tool's dir", d.remote, d.collection, d.tool)
	}
	return inode("dir", d.remote, d.collection)
}

// Volatile reports whether names in d can change without the catalogue noticing: other
// programs add files to a directory of this machine.
func (d *Dir) Volatile() bool {
	if d.tool != "" || d.finder != "" {
		return true
	}
	r, ok := d.fs.cat.Configured(d.remote) // to look at a host's directory is not to ask it
	return ok && r.Client != nil && r.Client.Caps().Has(backends.CanOpenFile)
}

// A location is where a draft is in the tree: its directory, and either the image that
// it will be or, for a temporary name, that name.
type location struct {
	remote, collection string
	tool               string // as Dir.tool
	name               string // of the file, if temporary; else of the image, without extension
	temporary          bool
}

// A Draft is a file that is being written, or was and is not published.
type Draft struct {
	fs  *FS
	id  uint64 // tells drafts apart that have the inode number of one image
	ino uint64

	// exclusive is held while the draft is published or renamed. It is taken before mu.
	exclusive chan struct{}

	mu        sync.Mutex // guards the fields below
	data      *spool.Draft
	loc       location
	name      string // of the file, as it was created
	attr      Attr
	writers   map[*File]struct{}   // handles open for writing
	handles   int                  // all handles
	claims    map[uint32]time.Time // threads that got ErrRetry, and when
	opened    bool                 // it was opened at least once
	flushed   time.Time            // when a descriptor of it was closed last
	dirty     bool                 // written since it was last published
	broken    bool                 // a write failed: bytes are missing
	err       error
	committed bool          // closing it succeeded: its data is published, or will be
	removed   bool          // removed, or replaced by another
	mustMatch *Image        // which may not be replaced: other bytes are refused
	idle      chan struct{} // closed when the last handle for writing is; nil if there is none
}

// An Image is a published image as a file. It is one version: once its name means another
// version, Lookup returns another node.
type Image struct {
	fs     *FS
	remote string
	img    backends.Image // without Labels
	labels string         // packed: the kernel can know a million images
	ino    uint64
	found  bool         // in a directory of Options.Finders: it cannot be written to
	size   atomic.Int64 // as img.Size, or what the first opening showed

	failure atomic.Pointer[error] // see Fail; nil after a success
}

// A File is one handle on a Draft. The caller closes it.
type File struct {
	d       *Draft
	write   bool
	opener  uint32 // process that opened it
	closing bool   // guarded by d.mu: its opener has closed it, and nobody wrote since
}

// A Change says what a cache of the tree must forget.
type Change struct {
	Remote     string
	Collection string
	Names      []string // in that directory: each of them may mean something else, or nothing
	Listing    bool     // the directory's list of names may have changed too
	// Key, if not empty, is that of bytes that became whole or were dropped; the
	// other fields are then empty.
	Key cache.Key
}

// Path returns the names that lead from the root to the directory: none to the
// root itself, which has no Remote.
func (c Change) Path() []string {
	if c.Remote == "" {
		return nil
	}
	path := []string{c.Remote}
	if c.Collection != "" {
		for part := range strings.SplitSeq(c.Collection, "/") {
			path = append(path, dirName(part))
		}
	}
	return path
}
