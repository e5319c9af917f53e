// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// List yields what a collection holds: from the store while that is younger
// than ListTTL; if it is older, still from the store, while a refresh runs in the
// background (events tell what changed); if there is none, from the registry.
// Entries may have an image without Version: only its name is known. Where no whole
// listing was ever had, what is known is followed by the error that says why.
// Collections made by Mkdir and images opened by name are among them; where the
// registry cannot list they are all. Collections come first, then images, each
// in the order of the names; a remote whose images are local files keeps its own order.
//
// Errors: fs.ErrNotExist if there is no such collection; those of
// backends.Lister where nothing is stored.
func (c *listings) List(ctx context.Context, remote, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		for l, err := range c.Names(ctx, remote, collection) {
			if err != nil {
				yield(backends.Entry{}, err)
				return
			}
			if !yield(l.Entry(), nil) {
				return
			}
		}
	}
}

// A Listed is what a listing has of one name.
type Listed = index.Listed

// AppendVersion appends the image's version, else its digest, in few bytes.
func AppendVersion(b []byte, img *backends.Image) []byte { return index.AppendVersion(b, img) }

// Names is List for a caller that needs little of each entry. An entry is valid until the
// next step only.
//
// Errors: those of List.
func (c *listings) Names(ctx context.Context, remote, collection string) iter.Seq2[*Listed, error] {
	return func(yield func(*index.Listed, error) bool) {
		r, err := c.Remote(remote)
		if err != nil {
			yield(nil, err)
			return
		}
		made := c.records.Children(remote, collection)
		isMade := c.records.IsMade(remote, collection)
		l := lister{yield: yield, made: made, pinned: c.pinnedIn(remote, collection), ours: isMade, exists: isMade || collection == ""}
		if r.Local() {
			l.from(r.Client.List(ctx, collection))
			return
		}
		s, err := c.store()
		if err != nil {
			yield(nil, err)
			return
		}
		err = c.listable(ctx, s, r, collection)
		if errors.Is(err, index.ErrStore) && r.Client != nil {
			// What cannot be stored can still be shown.
			l.from(r.Client.List(ctx, collection))
			return
		}
		l.stored(s, remote, collection, err)
	}
}

// listable has a listing made if none is stored. It returns why there is none.
func (c *listings) listable(ctx context.Context, s *index.Index, r Remote, collection string) error {
	if h, ok := s.Header(r.Name, collection); ok {
		if c.listFresh(h) {
			return nil
		}
		c.refreshLater(r, collection)
		if err := c.failed.last(string(index.HeaderKey(r.Name, collection))); errors.Is(err, index.ErrStore) {
			return err // what is stored can no longer change
		}
		return nil
	}
	if r.Client == nil {
		return r.Unopened()
	}
	if err := c.failed.recent(string(index.HeaderKey(r.Name, collection)), c.Now()); err != nil {
		return err
	}
	return c.join(ctx, s, r, collection)
}

// A lister yields one listing, with the collections made by hand among it.
type lister struct {
	yield  func(*index.Listed, error) bool
	made   map[string]bool                // full names of child collections that were not yielded yet
	pinned map[backends.Ref]*index.Listed // images as runs have pinned them that were not yielded yet
	exists bool                           // the collection is there, also where the registry does not know it
	ours   bool                           // it was made here: nothing is missing that was shown before
	ended  bool                           // the caller has ended the iteration
}

func (l *lister) add(e *index.Listed) bool {
	if e.Collection != "" {
		delete(l.made, e.Collection)
	} else if p, ok := l.pinned[e.Ref]; ok {
		delete(l.pinned, e.Ref)
		e = p
	}
	l.ended = !l.yield(e, nil)
	return !l.ended
}

// end yields the collections made by hand, and err, unless the listing is complete without
// what failed.
func (l *lister) end(err error) {
	for _, collection := range slices.Sorted(maps.Keys(l.made)) {
		if l.ended || !l.add(&index.Listed{Collection: collection}) {
			return
		}
	}
	left := slices.SortedFunc(maps.Values(l.pinned), func(a, b *index.Listed) int { return cmp.Compare(a.Ref.String(), b.Ref.String()) })
	for _, p := range left { // their tags are gone, or the registry lists nothing
		if l.ended || !l.add(p) {
			return
		}
	}
	if l.ended || err == nil || errors.Is(err, errors.ErrUnsupported) ||
		l.exists && errors.Is(err, fs.ErrNotExist) || l.ours && Passing(err) {
		return
	}
	l.yield(nil, err)
}

// from yields what a registry lists, without a store.
func (l *lister) from(seq iter.Seq2[backends.Entry, error]) {
	for e, err := range seq {
		if err != nil {
			l.end(err)
			return
		}
		if e.Untold != nil {
			continue
		}
		if !l.add(index.Directly(e.Collection, &e.Image)) {
			return
		}
	}
	l.end(nil)
}

// stored yields what the store has; err is why that may be nothing.
func (l *lister) stored(s *index.Index, remote, collection string, err error) {
	prefix := index.ListPrefix(remote, collection)
	one := index.Listed{Ref: backends.Ref{Collection: collection}}
	for kv, scanErr := range index.Pages(s, prefix, nil) {
		if scanErr != nil {
			l.yield(nil, listError(remote, collection, scanErr))
			return
		}
		if one.Read(kv, len(prefix), collection) && !l.add(&one) {
			return
		}
	}
	l.end(err)
}

// IsCollection reports whether the remote has a collection of that name, from
// the stored listings, or by listing it. For one that
// cannot be listed, or not with this login, it reports true: it may be there, and images
// in it can be opened by name.
//
// Errors: those of backends.Lister that say nothing of the collection.
func (c *listings) IsCollection(ctx context.Context, remote, collection string) (bool, error) {
	r, err := c.Remote(remote)
	if err != nil {
		return false, err
	}
	if err := checkCollection(collection); err != nil {
		return false, nil //nolint:nilerr // there is none of an impossible name
	}
	if collection == "" || c.records.IsMade(remote, collection) {
		return true, nil
	}
	if r.Local() {
		for _, err = range r.Client.List(ctx, collection) {
			break
		}
	} else {
		s, storeErr := c.store()
		if storeErr != nil {
			return false, storeErr
		}
		if s.Emptied(remote, collection) {
			c.lookAgain(s, r, collection)
			return false, nil
		}
		if s.HasCollection(remote, collection) || isAssumed(r, collection) {
			return true, nil
		}
		err = c.discover(ctx, s, r, collection)
	}
	switch {
	case err == nil || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission):
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, err
}

// isAssumed reports whether a collection of a host is taken to be there without a
// question: who opens an image by its whole name need not wait until all of a service was
// listed. A name with a dot may be that of a file which programs look for everywhere.
func isAssumed(r Remote, collection string) bool {
	_, last := index.Parent(collection)
	return r.ByHost && r.Client != nil && !strings.Contains(last, ".") &&
		r.Client.CheckName(backends.Ref{Collection: collection, Name: "x", Tag: backends.DefaultTag}) == nil
}

// IsListed reports whether a collection is one for certain, which IsCollection does not:
// it was made here, or a listing has shown it. No registry is asked.
func (c *listings) IsListed(remote, collection string) bool {
	r, err := c.Remote(remote)
	if err != nil || r.Local() || c.records.IsMade(remote, collection) {
		return err == nil // for files of this machine IsCollection is certain
	}
	s, err := c.store()
	return err == nil && s.HasCollection(remote, collection)
}

// checkCollection returns fs.ErrInvalid for what can be no collection's name.
func checkCollection(collection string) error {
	if collection == "" {
		return nil
	}
	return backends.Ref{Collection: collection, Name: "x", Tag: "x"}.Check()
}

// discover finds out whether there is a collection of which nothing is known, for a path
// that is opened before it was listed. It lists both the collection and its parent, and
// returns with the first answer; the collection's own listing goes on in the background.
// A registry's catalogue names its collections at once, while their tags cost
// requests for each image.
//
// Errors: fs.ErrNotExist if there is none; those of backends.Lister.
func (c *listings) discover(ctx context.Context, s *index.Index, r Remote, collection string) error {
	parent, _ := index.Parent(collection)
	_, known := s.Header(r.Name, parent)
	if known || r.Client == nil {
		return c.listable(ctx, s, r, collection)
	}
	var probe sync.WaitGroup
	defer probe.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan struct{})
	probe.Go(func() {
		_ = backends.Guard(c.opts.Log, func() error { // it is in the log, and nothing was found
			if holds(ctx, r, parent, collection) {
				close(found)
				cancel() // the listing goes on in the background
			}
			return nil
		})
	})
	err := c.listable(ctx, s, r, collection)
	select {
	case <-found:
		return nil
	default:
		return err
	}
}

// holds reports whether a listing begins with collections, and one of them is
// child. It goes no further than to the first image: those can cost requests.
func holds(ctx context.Context, r Remote, collection, child string) bool {
	for e, err := range r.Client.List(ctx, collection) {
		if err != nil || e.Collection == "" {
			return false
		}
		if e.Collection == child {
			return true
		}
	}
	return false
}
