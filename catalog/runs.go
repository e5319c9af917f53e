// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"slices"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/records"
)

// Pinned returns what a name means to whoever reads it here, if a run has pinned it.
func (c *core) Pinned(remote string, ref backends.Ref) (backends.Image, bool) {
	if ref.Version == "" {
		ref.Tag = cmp.Or(ref.Tag, backends.DefaultTag)
	}
	p, ok := c.records.PinnedFor(remote, ref)
	img := p.Image
	img.Ref.Version = "" // the name is asked for as always, and Lookup adds a version that it says
	return img, ok
}

// PinFor makes the name of img mean img here until the run releases it, or what another run
// has pinned it to. Its bytes are kept in the cache.
//
// Errors: fs.ErrInvalid for a bad name of the run; those of the local disk.
func (c *core) PinFor(run, remote string, img backends.Image) (backends.Image, error) {
	s, err := c.State()
	if err != nil {
		return img, err
	}
	p, err := c.records.PinFor(records.RunPin{Run: run, Remote: remote, Image: img, Since: c.Now()})
	if err != nil {
		return img, err
	}
	if s.Cache != nil {
		s.Cache.Pin(cache.KeyOf(remote, p.Image))
	}
	c.tellPinned(p)
	return p.Image, nil
}

// Release ends the pins of a run, or of some names of it; see records.Records.Release.
func (c *core) Release(run string, only func(remote string, ref backends.Ref) bool) ([]records.RunPin, error) {
	s, err := c.State()
	if err != nil {
		return nil, err
	}
	released, err := c.records.Release(run, only)
	for _, p := range released {
		key := cache.KeyOf(p.Remote, p.Image)
		if s.Cache != nil && !c.keeps(key) {
			s.Cache.Unpin(key)
		}
		c.tellPinned(p)
	}
	return released, err
}

// tellPinned emits that a name means another image.
func (c *core) tellPinned(p records.RunPin) {
	ref := p.Image.Ref
	c.watchers.emit(
		Event{Kind: ImageChanged, Remote: p.Remote, Collection: ref.Collection, Ref: ref},
		Event{Kind: ListingChanged, Remote: p.Remote, Collection: ref.Collection})
}

// keeps reports whether a blob is pinned, by itself or for a run.
func (c *core) keeps(key cache.Key) bool {
	return slices.ContainsFunc(c.records.Pins(), func(p records.Pin) bool { return p.Key == key }) || c.KeptForRun(key)
}

// KeptForRun reports whether a run has pinned what a blob has the bytes of.
func (c *core) KeptForRun(key cache.Key) bool {
	return slices.ContainsFunc(c.records.RunPins(), func(p records.RunPin) bool { return cache.KeyOf(p.Remote, p.Image) == key })
}

// RunsOf returns the runs that have pinned a name, the first first.
func (c *core) RunsOf(remote string, ref backends.Ref) (names []string) {
	if _, ok := c.records.PinnedFor(remote, ref); !ok {
		return nil // as nearly always
	}
	for _, p := range c.records.RunPins() {
		if p.Remote == remote && p.Image.Ref == ref {
			names = append(names, p.Run)
		}
	}
	return names
}

// pinnedIn returns what runs have pinned in a collection, by name; nil if nothing.
func (c *core) pinnedIn(remote, collection string) map[backends.Ref]*index.Listed {
	var found map[backends.Ref]*index.Listed
	for _, p := range c.records.RunPins() {
		ref := p.Image.Ref
		if p.Remote != remote || ref.Collection != collection || ref.Version != "" {
			continue
		}
		if img, ok := c.Pinned(remote, ref); ok {
			if found == nil {
				found = make(map[backends.Ref]*index.Listed)
			}
			found[ref] = index.Directly("", &img)
		}
	}
	return found
}
