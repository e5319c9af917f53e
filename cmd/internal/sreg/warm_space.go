// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// checkSpace refuses a set of images that does not fit, before anything is fetched: the
// cache would evict the first images to make room for the last ones. Images of unknown
// size do not count.
//
// Errors: ENOSPC.
func (w *warmRun) checkSpace(ctx context.Context, targets []warmTarget) error {
	if w.force || len(targets) == 0 {
		return nil
	}
	use, err := w.client.CacheUse(ctx)
	if err != nil {
		return err
	}
	missing, evictable, err := w.missing(ctx, targets)
	if err != nil {
		return err
	}
	if w.to != "" {
		// The cache may evict an image once it is copied, so it needs room only for
		// those that are fetched at the same time; missing begins with the largest.
		missing = missing[:min(len(missing), w.workers)]
	}
	need, room := sumOf(missing), roomOf(use, evictable)
	if need > room {
		return fmt.Errorf("warm: %w: the cache in %s needs %s more and has room for %s (--force begins anyway; cache_size and min_free are its limits)",
			syscall.ENOSPC, use.Dir, size(need), size(room))
	}
	return w.checkCopies(targets, use.Dir, need)
}

// missing returns the bytes to fetch of each image, the largest first, and how many bytes
// the cache can evict without evicting one of these images. Two tags of one image share
// its bytes, so images are counted by key.
func (w *warmRun) missing(ctx context.Context, targets []warmTarget) (missing []int64, evictable int64, err error) {
	here := map[cache.Key]verbs.Cached{}
	for b, err := range w.client.Cached(ctx, nil) {
		if err != nil {
			return nil, 0, err
		}
		here[b.Key] = b
	}
	wanted := map[cache.Key]bool{}
	for _, t := range targets {
		key := cache.KeyOf(t.rec.Remote, backends.Image{Ref: t.rec.Ref, Digest: t.rec.Digest, Version: t.rec.Version, Modified: t.rec.Modified})
		b, known := here[key]
		local := !known && t.rec.State == cache.Cached // a file of this machine, which the cache does not hold
		if n := t.rec.Size - b.Have; !wanted[key] && !local && n > 0 {
			missing = append(missing, n)
		}
		wanted[key] = true
	}
	for key, b := range here {
		if !wanted[key] && !b.Pinned && b.Open == 0 {
			evictable += b.OnDisk
		}
	}
	slices.Sort(missing)
	slices.Reverse(missing)
	return missing, evictable, nil
}

func sumOf(all []int64) (n int64) {
	for _, v := range all {
		n = addCapped(n, v)
	}
	return n
}

// addCapped adds sizes, and returns math.MaxInt64 instead of overflowing: a registry may
// tell any size.
func addCapped(a, b int64) int64 {
	if b = max(b, 0); a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// roomOf returns how many bytes more the cache may hold.
func roomOf(use verbs.CacheUse, evictable int64) int64 {
	room := int64(math.MaxInt64)
	if use.Free >= 0 {
		room = use.Free - use.MinFree + evictable
	}
	if use.Limit > 0 {
		room = min(room, use.Limit-use.Used+evictable)
	}
	return max(room, 0)
}

// checkCopies checks that there is room for the copies. If the cache in dir is on the same
// disk, its need counts, too. A copy that exists with the right size needs no room.
func (w *warmRun) checkCopies(targets []warmTarget, dir string, need int64) error {
	if w.to == "" {
		return nil
	}
	at := existing(w.to)
	var st unix.Statfs_t
	if unix.Statfs(at, &st) != nil {
		return nil
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // of another type on other systems
	var copies int64
	for _, t := range targets {
		if info, err := os.Lstat(t.to); err != nil || info.Size() != t.rec.Size {
			copies = addCapped(copies, t.rec.Size)
		}
	}
	if sameDisk(at, dir) {
		copies = addCapped(copies, need)
	}
	if copies > free {
		return fmt.Errorf("warm: %w: %s needs %s and has %s (--force begins anyway)", syscall.ENOSPC, w.to, size(copies), size(free))
	}
	return nil
}

// existing returns the longest part of a path that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

func sameDisk(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}
