// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"fmt"
	"hash/maphash"
	"log/slog"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
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
	Log  *slog.Logger
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

	mu       sync.Mutex         // guards the fields below
	drafts   map[place][]*Draft // those of one image are written side by side; the newest is the last
	toolDirs map[place]struct{}
	watchers map[int]func(Change)
	watched  int
}

// New returns the tree of a catalogue, whose state it opens, and its uploads: those that
// an earlier process accepted are in the tree. It makes no request.
func New(cat *catalog.Catalog, up *uploads.Uploads, opts Options) *FS {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	f := &FS{
		cat:      cat,
		uploads:  up,
		opts:     opts,
		started:  time.Now(),
		seed:     maphash.MakeSeed(),
		drafts:   make(map[place][]*Draft),
		toolDirs: make(map[place]struct{}),
		watchers: make(map[int]func(Change)),
	}
	f.restore()
	return f
}

// Root returns the directory that holds one directory for each remote.
func (f *FS) Root() *Dir { return &Dir{fs: f} }

// Disk returns Options.Disk.
func (f *FS) Disk() string { return f.opts.Disk }

// writable reports whether images can be pushed to a remote at all.
func (f *FS) writable(r catalog.Remote) bool {
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
	case err != nil || f.writable(r):
	case f.opts.ReadOnly:
		err = fmt.Errorf("%w: the mount is (--read-only)", backends.ErrReadOnly)
	case r.Policy.ReadOnly:
		err = fmt.Errorf("%w: remote %s is (read_only)", backends.ErrReadOnly, name)
	default:
		err = fmt.Errorf("%w: remote %s, of type %s, takes no images", backends.ErrReadOnly, name, r.Type)
	}
	return r, err
}

// A Caller is who makes a request. Zero fields are not known.
type Caller struct {
	Thread  uint32
	Process uint32
}
