// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"hash/maphash"
	"io/fs"
	"log/slog"
	"time"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

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
		drafts:   make(map[location][]*Draft),
		toolDirs: make(map[location]struct{}),
		watchers: make(map[int]func(Change)),
	}
	f.restore()
	return f
}

// restore puts the files of an earlier process back into the tree: queued uploads, which
// their users have seen succeed, and files with temporary names, which stay until they are
// renamed or removed. Of several files with one name the newest is shown.
func (f *FS) restore() {
	for _, data := range f.uploads.Standing() {
		info := data.Info()
		dir := &Dir{fs: f, remote: info.Target.Remote, collection: info.Target.Ref.Collection}
		name := f.opts.Names.fileName(info.Target.Ref, info.Target.Format)
		if info.Target.File != "" {
			var err error
			if dir, name, err = f.stagedAt(info.Target); err != nil {
				f.opts.Log.Warn("a file has no place in the tree", "remote", info.Target.Remote, "file", info.Target.File, "err", err)
				data.Close() //nolint:errcheck // it stays in the spool
				continue
			}
		}
		d := f.newDraft(data, dir.locate(name), name)
		d.committed, d.attr.ModTime = info.Target.File == "", info.ModTime
		if mode := fs.FileMode(info.Mode) & fs.ModePerm; mode != 0 {
			d.attr.Mode = mode
		}
		for _, older := range f.drafts[d.loc] {
			older.release()
		}
		f.drafts[d.loc] = []*Draft{d}
		data.Idle()
	}
}
