// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/records"
)

// blobs are the verbs about what is in the cache.
type blobs struct{ reader }

// A Cached is a blob of the cache, or one that is pinned and not here.
type Cached struct {
	Key      cache.Key   `json:"key"`
	URIs     []string    `json:"uris"`    // of the images whose bytes these are, as far as is known
	Remotes  []string    `json:"remotes"` // that have these images
	State    cache.State `json:"state"`
	Size     int64       `json:"size"` // bytes; -1 if not known yet
	Have     int64       `json:"have"` // bytes of it that are here
	OnDisk   int64       `json:"on_disk"`
	Pinned   bool        `json:"pinned,omitempty"`
	Open     int         `json:"open,omitempty"`     // handles
	Requests int         `json:"requests,omitempty"` // under way to fetch it
	Used     time.Time   `json:"used,omitzero"`
	Verified time.Time   `json:"verified,omitzero"` // when the digest last matched
	Refused  time.Time   `json:"refused,omitzero"`  // it is not fetched before, because what came did not match the digest
	Error    string      `json:"error,omitempty"`   // why the last fetch failed
}

// minKeyDigits is the least number of digits that name a blob: fewer could match several
// by accident.
const minKeyDigits = 6

// Cached yields what is in the cache, and what is pinned; if there are patterns, only what
// they mean. Patterns are those of Choose, among the images that are known; a URI
// without a remote means the image on every remote. "sha256:" with six digits or
// more means the blob itself.
//
// Errors: fs.ErrInvalid for a bad pattern; fs.ErrNotExist if one means nothing in the cache;
// those of Options.State.
func (v *blobs) Cached(ctx context.Context, patterns []string) iter.Seq2[Cached, error] {
	return func(yield func(Cached, error) bool) {
		wanted, err := v.readCachePatterns(patterns)
		if err != nil {
			yield(Cached{}, err)
			return
		}
		all, err := v.cached(ctx, wanted)
		if err != nil {
			yield(Cached{}, err)
			return
		}
		for _, b := range all {
			if !yield(*b, nil) {
				return
			}
		}
		var errs []error
		for _, p := range wanted {
			if !p.found {
				errs = append(errs, backends.NotFound("not in the cache: %s", p.text))
			}
		}
		if err := errors.Join(errs...); err != nil {
			yield(Cached{}, err)
		}
	}
}

// A cachePattern is a pattern, or the beginning of a key.
type cachePattern struct {
	pattern
	key   string
	uri   backends.URI
	found bool
}

func (v *blobs) readCachePatterns(texts []string) ([]*cachePattern, error) {
	var all []*cachePattern
	for _, text := range texts {
		p := &cachePattern{pattern: pattern{text: text}}
		if kind, digits, ok := strings.Cut(text, ":"); ok && (kind == "sha256" || kind == "version") &&
			len(digits) >= minKeyDigits && strings.Trim(digits, "0123456789abcdef") == "" {
			p.key = text
			all = append(all, p)
			continue
		}
		var err error
		if p.pattern, err = v.readPattern(text); err == nil && !p.many {
			p.uri, err = backends.ParseURI(text)
		}
		switch {
		case err == nil && p.uri.Host != "":
			var r catalog.Remote
			r, err = v.remoteOfHost(p.uri)
			p.uri.Remote = r.Name
		case err == nil && p.uri.Remote != "":
			if r, ref, unknown := v.resolveScheme(text, p.uri); unknown == nil { // else of a remote that was
				p.uri.Remote, p.uri.Ref = r.Name, ref
			}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// means reports whether the pattern means an image.
func (p *cachePattern) means(remote string, img backends.Image) bool {
	switch {
	case p.key != "":
		return false // it names the blob
	case p.many:
		return p.has(remote, img.Ref)
	}
	ref := p.uri.Ref
	ref.Version = ""
	return (p.uri.Remote == "" || p.uri.Remote == remote) && ref == img.Ref &&
		(p.uri.Ref.Version == "" || p.uri.Ref.Version == img.Version || p.uri.Ref.Version == img.Digest)
}

// cached returns the blobs that are wanted, those that were used last first.
func (v *blobs) cached(ctx context.Context, wanted []*cachePattern) ([]*Cached, error) {
	s, err := v.cat.State()
	if err != nil {
		return nil, err
	}
	all := v.inCache(s)
	chosen := map[cache.Key]bool{}
	for _, p := range wanted {
		for key := range all {
			if p.key != "" && strings.HasPrefix(string(key), p.key) {
				p.found, chosen[key] = true, true
			}
		}
	}
	err = v.nameBlobs(ctx, s.Index, all, func(b *Cached, remote string, img backends.Image) {
		for _, p := range wanted {
			if p.means(remote, img) {
				p.found, chosen[b.Key] = true, true
			}
		}
	})
	if err != nil {
		return nil, err
	}
	v.namePinned(all)
	if len(wanted) > 0 {
		maps.DeleteFunc(all, func(key cache.Key, _ *Cached) bool { return !chosen[key] })
	}
	return slices.SortedFunc(maps.Values(all), func(a, b *Cached) int {
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.Key, b.Key))
	}), nil
}

// inCache returns what is in the cache or pinned, without names.
func (v *blobs) inCache(s *catalog.State) map[cache.Key]*Cached {
	all := map[cache.Key]*Cached{}
	if s.Cache == nil {
		return all
	}
	for info := range s.Cache.Infos() {
		all[info.Key] = cachedOf(info)
	}
	for _, p := range v.cat.Records().Pins() {
		if all[p.Key] == nil {
			all[p.Key] = cachedOf(s.Cache.Info(p.Key))
		}
	}
	return all
}

func cachedOf(info cache.Info) *Cached {
	b := &Cached{
		Key: info.Key, URIs: []string{}, Remotes: []string{}, State: info.State, Size: info.Size, Have: info.Have, OnDisk: info.OnDisk,
		Pinned: info.Pinned, Open: info.Open, Requests: info.Requests, Used: info.Used, Verified: info.Verified, Refused: info.Refused,
	}
	if info.Err != nil {
		b.Error = info.Err.Error()
	}
	return b
}

// nameBlobs finds the names of blobs in the stored listings, and calls tell with each blob
// and image.
func (v *blobs) nameBlobs(ctx context.Context, s *index.Index, all map[cache.Key]*Cached, tell func(*Cached, string, backends.Image)) error {
	if len(all) == 0 {
		return nil
	}
	for _, r := range v.cat.Remotes() {
		if r.Local() {
			continue // nothing of it is in the cache
		}
		err := s.Versions(ctx, r.Name, func(img backends.Image) {
			b := all[cache.KeyOf(r.Name, img)]
			if b == nil {
				return
			}
			b.URIs = append(b.URIs, backends.URI{Remote: r.Name, Ref: img.Ref}.String())
			if !slices.Contains(b.Remotes, r.Name) {
				b.Remotes = append(b.Remotes, r.Name)
			}
			tell(b, r.Name, img)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// namePinned gives pinned blobs without a known name the one by which they were pinned.
func (v *blobs) namePinned(all map[cache.Key]*Cached) {
	for _, p := range v.cat.Records().Pins() {
		if b := all[p.Key]; b != nil && len(b.URIs) == 0 {
			b.URIs = append(b.URIs, p.URI)
		}
	}
}

// RemoveCached drops a blob from the cache and returns how many bytes of the disk
// that freed. A blob that is not there is no error.
//
// Errors: cache.ErrInUse while it is open or pinned; those of the local disk.
func (v *blobs) RemoveCached(_ context.Context, key cache.Key) (freed int64, err error) {
	s, err := v.cat.State()
	if err != nil {
		return 0, err
	}
	before := s.Cache.Info(key).OnDisk
	if err := s.Cache.Remove(key); err != nil {
		return 0, err
	}
	return before, nil
}

// VerifyCached reads a whole blob again and compares its digest. One that does not
// match is dropped.
//
// Errors: those of cache.Cache.Verify.
func (v *blobs) VerifyCached(ctx context.Context, key cache.Key, p catalog.Progress) error {
	s, err := v.cat.State()
	if err != nil {
		return err
	}
	return s.Cache.Verify(ctx, key, p)
}

// Pin protects the image that uri names now from eviction, also before it is downloaded.
// Unpin ends that. Neither downloads anything.
//
// Errors: those of Resolve and Lookup; fs.ErrInvalid for an image that is a
// local file anyway; those of the local disk.
func (v *blobs) Pin(ctx context.Context, uri string) (Record, error) {
	return v.setPin(ctx, uri, true)
}

// Unpin is the inverse of Pin.
func (v *blobs) Unpin(ctx context.Context, uri string) (Record, error) {
	return v.setPin(ctx, uri, false)
}

func (v *blobs) setPin(ctx context.Context, uri string, pinned bool) (Record, error) {
	r, img, err := v.find(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	if r.InPlace(img) {
		return Record{}, fmt.Errorf("%w: %s is a file of this machine, which nothing evicts", fs.ErrInvalid, uri)
	}
	if err := v.setPinOf(r, img, pinned); err != nil {
		return Record{}, err
	}
	return v.record(r.Name, img), nil
}

func (v *blobs) setPinOf(r catalog.Remote, img backends.Image, pinned bool) error {
	s, err := v.cat.State()
	if err != nil {
		return err
	}
	key := cache.KeyOf(r.Name, img)
	if !pinned {
		if err := v.cat.Records().Unpin(key); err != nil {
			return err
		}
		if !v.cat.KeptForRun(key) {
			s.Cache.Unpin(key)
		}
		return nil
	}
	if err := v.cat.Records().Pin(records.Pin{Key: key, URI: v.record(r.Name, img).URI}); err != nil {
		return err
	}
	s.Cache.Pin(key)
	return nil
}

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
