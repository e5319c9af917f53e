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

// checkSpace refuses what cannot fit before anything is downloaded: half a set of
// images on a full disk helps nobody, and the cache would drop the first ones to
// make room for the last. What is not known does not count.
//
// Errors: ENOSPC.
func (w *warming) checkSpace(ctx context.Context, targets []warmTarget) error {
	if w.force || len(targets) == 0 {
		return nil
	}
	use, err := w.client.CacheUse(ctx)
	if err != nil {
		return err
	}
	missing, spare, err := w.missing(ctx, targets)
	if err != nil {
		return err
	}
	if w.to != "" {
		// The cache may drop what is copied.
		missing = missing[:min(len(missing), w.workers)]
	}
	need, room := sumOf(missing), roomOf(use, spare)
	if need > room {
		return fmt.Errorf("warm: %w: the cache in %s needs %s more and has room for %s (--force begins all the same; cache_size and min_free are its limits)",
			syscall.ENOSPC, use.Dir, size(need), size(room))
	}
	return w.checkCopies(targets, use.Dir, need)
}

// missing returns the bytes that each image lacks, the largest first, and how many
// bytes the cache can free without dropping one that is wanted.
func (w *warming) missing(ctx context.Context, targets []warmTarget) (missing []int64, spare int64, err error) {
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
		atHand := !known && t.rec.State == cache.Cached // a file of this machine, which the cache does not hold
		if n := t.rec.Size - b.Have; !wanted[key] && !atHand && n > 0 {
			missing = append(missing, n)
		}
		wanted[key] = true
	}
	for key, b := range here {
		if !wanted[key] && !b.Pinned && b.Open == 0 {
			spare += b.OnDisk
		}
	}
	slices.Sort(missing)
	slices.Reverse(missing)
	return missing, spare, nil
}

func sumOf(all []int64) (n int64) {
	for _, v := range all {
		n = plus(n, v)
	}
	return n
}

// plus adds sizes: what registries say of very many images may be more than there
// are numbers.
func plus(a, b int64) int64 {
	if b = max(b, 0); a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// roomOf returns how many bytes more the cache may hold.
func roomOf(use verbs.CacheUse, spare int64) int64 {
	room := int64(math.MaxInt64)
	if use.Free >= 0 {
		room = use.Free - use.MinFree + spare
	}
	if use.Limit > 0 {
		room = min(room, use.Limit-use.Used+spare)
	}
	return max(room, 0)
}

// checkCopies looks whether the copies find room; the cache in dir takes need
// bytes at the same time.
func (w *warming) checkCopies(targets []warmTarget, dir string, need int64) error {
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
			copies = plus(copies, t.rec.Size)
		}
	}
	if sameDisk(at, dir) {
		copies = plus(copies, need)
	}
	if copies > free {
		return fmt.Errorf("warm: %w: %s needs %s and has %s (--force begins all the same)", syscall.ENOSPC, w.to, size(copies), size(free))
	}
	return nil
}

// existing returns the part of a path that is there.
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
