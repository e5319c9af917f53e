// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
)

// What registries told (manifests, an index) is kept by the backends in folders
// beside the blobs. It may be fetched again as blobs may: it counts as they do, and
// is removed when there is no room.

// Metadata is the key of all of it, for Remove and Info.
const Metadata Key = "metadata"

const (
	// metadataShare is the part of MaxBytes that metadata has before any blob goes
	// for it.
	metadataShare = 8
	// metadataEvery is how often it is looked at while no blob comes in.
	metadataEvery = time.Minute
)

// metadata returns the folder in which the folders of the backends are.
func (l layout) metadata() string { return filepath.Join(string(l), "remotes") }

// A metaFile is a file of a backend.
type metaFile struct {
	path string
	size int64 // bytes of the disk
	used time.Time
}

// metadata returns the files of the backends, those that were written longest ago
// first, and notes how much they take.
func (c *Cache) metadata() (files []metaFile) {
	var sum int64
	_ = filepath.WalkDir(c.dir.metadata(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // what cannot be read is not counted
		}
		if info, err := e.Info(); err == nil {
			files = append(files, metaFile{path, disk.Allocated(info), info.ModTime()})
			sum += disk.Allocated(info)
		}
		return nil
	})
	c.told.Store(sum)
	slices.SortFunc(files, func(a, b metaFile) int { return a.used.Compare(b.used) })
	return files
}

// trimMetadata removes files of the backends as long as still says so, and returns
// how many bytes it freed.
func (c *Cache) trimMetadata(still func() bool) (freed int64) {
	if c.handedOver.Load() {
		return 0
	}
	for _, f := range c.metadata() {
		if !still() {
			break
		}
		if err := os.Remove(f.path); err == nil {
			c.told.Add(-f.size)
			freed += f.size
		}
	}
	return freed
}

// oversized reports whether metadata takes more than its share.
func (c *Cache) oversized() bool {
	return c.opts.MaxBytes > 0 && c.told.Load() > c.opts.MaxBytes/metadataShare
}

// removeMetadata removes all of it. Errors: those of the local disk.
func (c *Cache) removeMetadata() error {
	var errs []error
	for _, f := range c.metadata() {
		errs = append(errs, ignoreMissing(os.Remove(f.path)))
	}
	c.metadata()
	return localError("remove", errors.Join(errs...))
}

// removeFormerMetadata removes what earlier versions kept: a file for each manifest
// and each tag.
func (c *Cache) removeFormerMetadata() {
	old, _ := filepath.Glob(filepath.Join(c.dir.metadata(), "*", "manifests", "??"))
	for _, dir := range old {
		if c.ctx.Err() != nil {
			return
		}
		_ = os.RemoveAll(dir)
		_ = os.Remove(filepath.Dir(dir)) // with the last one
	}
	c.metadata()
}
