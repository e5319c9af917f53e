// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

// A Use counts blobs and the bytes of the disk that they take.
type Use struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

func (u *Use) add(n int64) {
	u.Blobs++
	u.Bytes += n
}

// CacheUse is how much room the cache takes, and its limits.
type CacheUse struct {
	Dir      string      `json:"dir"`
	Used     int64       `json:"used"`
	Limit    int64       `json:"limit"`    // 0 means none
	Free     int64       `json:"free"`     // bytes on its disk; -1 if not known
	MinFree  int64       `json:"min_free"` // bytes of them that it leaves free
	Cached   Use         `json:"cached"`   // whole and verified
	Partial  Use         `json:"partial"`
	Metadata int64       `json:"metadata"`          // bytes of manifests and the like; counted in used
	Pinned   Use         `json:"pinned"`            // of both
	Open     Use         `json:"open"`              // of both
	Refused  int         `json:"refused,omitempty"` // blobs whose downloads did not match their digests
	Remotes  []RemoteUse `json:"remotes"`
	Uploads  Use         `json:"uploads"` // not published yet; not in the cache
}

// RemoteUse is what the images of one remote take. A blob that several remotes
// have counts once, under all of their names.
type RemoteUse struct {
	Remotes []string `json:"remotes"` // empty: no known image is these
	Use
}

// CacheUse reports what the cache and the uploads take. It asks no registry.
//
// Errors: those of Options.State.
func (v *blobs) CacheUse(ctx context.Context) (CacheUse, error) {
	s, err := v.cat.State()
	if err != nil {
		return CacheUse{}, err
	}
	all := v.inCache(s)
	if err := v.nameBlobs(ctx, s.Index, all, func(*Cached, string, backends.Image) {}); err != nil {
		return CacheUse{}, err
	}
	use := CacheUse{Free: -1}
	if s.Cache != nil {
		use.Dir = s.Cache.Dir()
		use.Used, use.Limit = s.Cache.Usage()
		use.Metadata = s.Cache.Info(cache.Metadata).OnDisk
		if free, reserve, ok := s.Cache.Space(); ok {
			use.Free, use.MinFree = free, reserve
		}
	}
	for _, b := range all {
		use.count(b)
	}
	use.Remotes = usesOf(all)
	if s.Spool != nil {
		for _, d := range s.Spool.Drafts() {
			use.Uploads.add(d.Size)
		}
	}
	return use, nil
}

func (u *CacheUse) count(b *Cached) {
	switch b.State {
	case cache.Cached:
		u.Cached.add(b.OnDisk)
	case cache.Partial:
		u.Partial.add(b.OnDisk)
	}
	if b.Pinned {
		u.Pinned.add(b.OnDisk)
	}
	if b.Open > 0 {
		u.Open.add(b.OnDisk)
	}
	if !b.Refused.IsZero() {
		u.Refused++
	}
}

// usesOf adds up by remotes; the largest come first.
func usesOf(all map[cache.Key]*Cached) []RemoteUse {
	by := map[string]*RemoteUse{}
	for _, b := range all {
		if b.State == cache.Remote {
			continue
		}
		slices.Sort(b.Remotes)
		name := strings.Join(b.Remotes, " ")
		if by[name] == nil {
			by[name] = &RemoteUse{Remotes: b.Remotes}
		}
		by[name].add(b.OnDisk)
	}
	uses := []RemoteUse{}
	for _, name := range slices.Sorted(maps.Keys(by)) {
		uses = append(uses, *by[name])
	}
	slices.SortStableFunc(uses, func(a, b RemoteUse) int { return cmp.Compare(b.Bytes, a.Bytes) })
	return uses
}
