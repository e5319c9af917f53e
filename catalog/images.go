// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/index"
)

// A Record is an image with all that is known of it here: what the commands print.
type Record struct {
	URI      string            `json:"uri"`
	Remote   string            `json:"remote"`
	Ref      backends.Ref      `json:"ref"`
	Size     int64             `json:"size"` // bytes; -1 if not known yet
	Digest   string            `json:"digest,omitempty"`
	Version  string            `json:"version,omitempty"`
	Modified time.Time         `json:"modified,omitzero"`
	Format   string            `json:"format,omitempty"`
	State    cache.State       `json:"state"`
	Pinned   bool              `json:"pinned,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	URL      string            `json:"url,omitempty"`
	Path     string            `json:"path,omitempty"` // of the file with the bytes, if they are here whole
}

// Progress is told how a transfer goes: bytes done of total (-1: not known).
type Progress func(done, total int64)

// record makes the record of an image, without Path.
func (c *Catalog) record(remote string, img backends.Image) Record {
	r := Record{
		URI: backends.URI{Remote: remote, Ref: img.Ref}.String(), Remote: remote, Ref: img.Ref,
		Size: img.Size, Digest: img.Digest, Version: img.Version, Modified: img.Modified,
		Format: img.Format, State: cache.Remote, Labels: img.Labels, URL: img.URL,
	}
	if img.Version != "" || img.Digest != "" {
		info := c.BlobInfo(remote, img)
		r.State, r.Pinned = info.State, info.Pinned
	}
	return r
}

// Images yields what is known, from the stored listings of all remotes or one,
// in the order of remote, collection, name and tag. A query is matched as a
// substring, or as a glob if it has * ? [ in it, against the URI without case.
// Listings that were never made, or are out of date, are made now, down to every
// collection, where refresh is set. What goes wrong with one remote comes last.
//
// Errors: fs.ErrNotExist for an unknown remote; fs.ErrInvalid for a bad pattern;
// those of backends.Lister, joined.
func (c *Catalog) Images(ctx context.Context, query, remote string, refresh bool) iter.Seq2[Record, error] {
	mode := storedOnly
	if refresh {
		mode = allFresh
	}
	return c.images(ctx, query, remote, func(Remote) crawl { return mode })
}

// A crawl says how far listings are made before they are read.
type crawl int

const (
	storedOnly crawl = iota // not at all
	neverMade               // those that were never made
	allFresh                // and those that are out of date
)

func (c *Catalog) images(ctx context.Context, query, remote string, mode func(Remote) crawl) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		match, err := index.NewMatcher(query)
		if err != nil {
			yield(Record{}, err)
			return
		}
		remotes := c.remotes.all()
		if remote != "" {
			r, err := c.Remote(remote)
			if err != nil {
				yield(Record{}, err)
				return
			}
			remotes = []Remote{r}
		}
		var errs []error
		more := true
		for _, r := range remotes {
			err := c.imagesOf(ctx, r, mode(r), match, func(rec Record) bool {
				more = yield(rec, nil)
				return more
			})
			if !more {
				return
			}
			errs = append(errs, c.missed(r, remote, err))
		}
		if err := errors.Join(errs...); err != nil {
			yield(Record{}, err)
		}
	}
}

// missed returns err, unless it says no more than that a remote of which nobody has
// spoken is out of reach: of all remotes, or of the one that was asked for by name.
func (c *Catalog) missed(r Remote, asked string, err error) error {
	if asked == "" && r.Guessed && r.Name != c.opts.Default && passing(err) {
		c.opts.Log.Info("a remote was left out: it cannot be reached", "remote", r.Name, "err", err)
		return nil
	}
	return err
}

// imagesOf calls yield with the images of one remote until it returns false.
func (c *Catalog) imagesOf(ctx context.Context, r Remote, mode crawl, match *index.Matcher, yield func(Record) bool) error {
	if r.atHand() {
		return c.imagesAtHand(ctx, r, match, yield)
	}
	s, err := c.store()
	if err != nil {
		return err
	}
	if mode != storedOnly {
		err = c.crawl(ctx, s, r, "", mode)
	}
	return errors.Join(err, c.imagesStored(s, r.Name, match, yield))
}

// imagesStored calls yield with the stored images of a remote.
func (c *Catalog) imagesStored(s *index.Index, remote string, match *index.Matcher, yield func(Record) bool) error {
	err := s.Images(remote, match, func(img backends.Image) bool { return yield(c.record(remote, img)) })
	if err != nil {
		return listError(remote, "", err)
	}
	return nil
}

// imagesAtHand walks the files of this machine.
func (c *Catalog) imagesAtHand(ctx context.Context, r Remote, match *index.Matcher, yield func(Record) bool) error {
	var found []backends.Image
	var errs []error
	pending := []string{""}
	for len(pending) > 0 {
		collection := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for e, err := range r.Client.List(ctx, collection) {
			switch {
			case err != nil:
				if collection != "" || !errors.Is(err, fs.ErrNotExist) { // a store that was never written to
					errs = append(errs, err)
				}
			case e.Collection != "":
				pending = append(pending, e.Collection)
			case match.Match(r.Name, e.Image.Ref):
				found = append(found, index.Clean(e.Image))
			}
		}
	}
	slices.SortFunc(found, func(a, b backends.Image) int {
		return cmp.Or(cmp.Compare(a.Ref.Collection, b.Ref.Collection), cmp.Compare(a.Ref.Name, b.Ref.Name), cmp.Compare(a.Ref.Tag, b.Ref.Tag))
	})
	for _, img := range found {
		if !yield(c.record(r.Name, img)) {
			return nil
		}
	}
	return errors.Join(errs...)
}

const crawlWorkers = 4 // listings of one remote made at once

// crawl makes the listings of a collection and of all below it, level by level.
// Collections that cannot be listed, or went meanwhile, are passed over; an error
// of the service ends it.
func (c *Catalog) crawl(ctx context.Context, s *index.Index, r Remote, from string, mode crawl) error {
	if r.Client == nil {
		return r.unopened()
	}
	for level := []string{from}; len(level) > 0; {
		g, groupCtx := errgroup.WithContext(ctx)
		g.SetLimit(crawlWorkers)
		for _, collection := range level {
			h, ok := s.Header(r.Name, collection)
			if ok && (mode == neverMade || c.listFresh(h)) {
				continue
			}
			g.Go(guarded(c.opts.Log, func() error {
				err := c.join(groupCtx, s, r, collection)
				if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}))
		}
		if err := g.Wait(); err != nil {
			return err
		}
		var next []string
		for _, collection := range level {
			next = append(next, s.Children(r.Name, collection)...)
		}
		level = next
	}
	return nil
}
