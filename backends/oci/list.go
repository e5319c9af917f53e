// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	pageSize    = 1000
	tagRequests = 16 // at once
	maxProbes   = 32 // images of one listing that are looked at for their format
)

// List tells the tags of the repositories that lie directly in collection, and
// the collections below it, from the registry's catalogue. Whether a tag is a SIF
// or a container image is not asked for but guessed; one that Stat has found to
// be neither is left out from then on.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		all, err := c.catalogue(ctx, strings.Trim(c.namespace+"/"+collection, "/"))
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		children, images := below(all, c.prefix(collection))
		if collection != "" && len(children)+len(images) == 0 && !c.isNamespace(ctx, strings.TrimSuffix(c.prefix(collection), "/")) {
			yield(backends.Entry{}, backends.NotFound("no repository is named %s…", c.prefix(collection)))
			return
		}
		for _, child := range children {
			if collection != "" {
				child = collection + "/" + child
			}
			if !yield(backends.Entry{Collection: child}, nil) {
				return
			}
		}
		c.listTags(ctx, collection, images, yield)
	}
}

// prefix returns what the repositories in and below collection begin with.
func (c *client) prefix(collection string) string {
	path := strings.Trim(c.namespace+"/"+collection, "/")
	if path == "" {
		return ""
	}
	return path + "/"
}

// below splits the repositories that begin with prefix into the collections
// and the images directly there.
func below(repositories []string, prefix string) (collections, images []string) {
	for _, repo := range repositories {
		rest, ok := strings.CutPrefix(repo, prefix)
		if !ok {
			continue
		}
		// Mostly they come in order, so that what is there twice follows itself.
		first, _, deeper := strings.Cut(rest, "/")
		if deeper {
			collections = appendNew(collections, first)
		} else {
			images = appendNew(images, first)
		}
	}
	slices.Sort(collections)
	slices.Sort(images)
	return slices.Compact(collections), slices.Compact(images)
}

// appendNew appends s unless it is the last already.
func appendNew(all []string, s string) []string {
	if len(all) > 0 && all[len(all)-1] == s {
		return all
	}
	return append(all, s)
}

// A tagStream is the tags of one image on their way. What is below pages is to be
// read once that is closed.
type tagStream struct {
	name   string
	pages  chan []string // closed at the end
	untold error         // why the registry tells none of them
	err    error         // why it ended
}

// listTags yields the tags of the images, in this order, and asks for those of
// several at once. However many they are, a few pages of each are in memory.
func (c *client) listTags(ctx context.Context, collection string, images []string, yield func(backends.Entry, error) bool) {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var probes atomic.Int64
	admitted := sync.OnceValue(func() error { return c.ping(ctx) })
	var running []*tagStream
	for len(images) > 0 || len(running) > 0 {
		for len(images) > 0 && len(running) < tagRequests {
			s := &tagStream{name: images[0], pages: make(chan []string, 1)}
			images, running = images[1:], append(running, s)
			group.Go(func() {
				defer close(s.pages)
				panicked := backends.Guard(c.log, func() error {
					c.sendTags(ctx, backends.Ref{Collection: collection, Name: s.name}, &probes, s)
					return nil
				})
				switch {
				case panicked != nil:
					s.err = panicked
				case s.untold != nil:
					s.err = admitted()
				}
			})
		}
		first := running[0]
		running = running[1:]
		for tags := range first.pages {
			for _, tag := range tags {
				ref := backends.Ref{Collection: collection, Name: first.name, Tag: tag}
				format := c.guess(c.repository(ref), tag)
				if !yield(backends.Entry{Image: backends.Image{Ref: ref, Size: -1, Format: format}}, nil) {
					return
				}
			}
		}
		if first.err != nil {
			yield(backends.Entry{}, first.err)
			return
		}
		if first.untold != nil {
			e := backends.Entry{Image: backends.Image{Ref: backends.Ref{Collection: collection, Name: first.name}}, Untold: first.untold}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// sendTags sends the pages of an image's tags, until ctx ends. If nothing is known
// of the image, one tag is looked at, unless probes says that enough were.
//
// A repository of the catalogue whose first page is refused is not for this
// account, provided that the registry lets the account in at all: the caller asks.
// One that the registry says it does not know has lost its last tag.
func (c *client) sendTags(ctx context.Context, ref backends.Ref, probes *atomic.Int64, s *tagStream) {
	repo := c.repository(ref)
	c.manifests.recall(repo, c.store.kind(repo))
	begun := false
	err := c.tagPages(ctx, repo, func(tags []string) error {
		begun = true
		tags = slices.DeleteFunc(tags, func(tag string) bool {
			return referrersTag.MatchString(tag) || c.manifests.foreign(repo, tag)
		})
		if len(tags) > 0 && !c.preset.counted && !c.manifests.seen(repo) && probes.Add(1) <= maxProbes {
			if _, err := c.resolve(c.scoped(ctx, repo, pull), repo, tags[len(tags)-1], c.arch); err != nil {
				c.log.Debug("what kind of image it is could not be found out", "repository", repo, "err", err)
			}
		}
		select {
		case s.pages <- tags:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	_, said := errors.AsType[saidError](err)
	switch {
	case begun:
		s.err = err
	case said:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		c.log.Debug("a repository of the catalogue does not tell its tags", "repository", repo, "err", err)
		s.untold = err
	default:
		s.err = err
	}
}

// tags returns the tags of repo.
func (c *client) tags(ctx context.Context, repo string) ([]string, error) {
	var all []string
	err := c.tagPages(ctx, repo, func(tags []string) error {
		all = append(all, tags...)
		return nil
	})
	slices.Sort(all)
	return slices.Compact(all), err
}

// A list is one in an answer: an object without it is an answer to something else,
// not an empty list.
type list[T any] struct {
	all  []T
	told bool // also by null
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *list[T]) UnmarshalJSON(text []byte) error {
	l.told = true
	return json.Unmarshal(text, &l.all)
}

// check returns an error if the answer had no list of what there should be.
func (l *list[T]) check(of string) error {
	if l.told {
		return nil
	}
	return fmt.Errorf("%w: no list of %s", backends.ErrBadAnswer, of)
}

// tagPages hands the tags of repo to use, a page at a time, each page in order.
func (c *client) tagPages(ctx context.Context, repo string, use func(tags []string) error) error {
	ctx = c.scoped(ctx, repo, pull)
	var page struct {
		Name string
		Tags list[string] // null after the last one was deleted
	}
	n := 0
	for err := range c.pages(ctx, fmt.Sprintf("/v2/%s/tags/list?n=%d", repo, pageSize), func(body io.Reader) error {
		page.Tags = list[string]{} // the one before is somebody else's
		err := httpx.JSON(body, &page)
		if err == nil && page.Name == "" {
			err = page.Tags.check("tags")
		}
		return err
	}) {
		if err != nil {
			return err
		}
		if n += len(page.Tags.all); n > maxNames {
			return errEndless
		}
		tags := slices.DeleteFunc(page.Tags.all, func(tag string) bool { return !tagRule.MatchString(tag) })
		slices.Sort(tags)
		if err := use(slices.Compact(tags)); err != nil {
			return err
		}
	}
	return nil
}

// repositories reads the part of the registry's catalogue in the namespace. Many registries have none, or
// none for everybody.
func (c *client) repositories(ctx context.Context) ([]string, error) {
	var all []string
	begun := false
	var err error
	scoped := auth.AppendScopesForHost(ctx, c.base.Host, auth.ScopeRegistryCatalog)
	for err = range c.pages(scoped, fmt.Sprintf("/v2/_catalog?n=%d", pageSize), func(body io.Reader) error {
		var page struct{ Repositories list[string] }
		if err := httpx.JSON(body, &page); err != nil {
			return err
		}
		if err := page.Repositories.check("repositories"); err != nil {
			return err
		}
		begun = true
		for _, repo := range page.Repositories.all {
			if checkRepository(repo) == nil && strings.HasPrefix(repo, c.prefix("")) {
				all = append(all, repo)
			}
		}
		if len(all) > maxNames {
			return errEndless
		}
		return nil
	}) {
		if err != nil {
			break
		}
	}
	if begun || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errors.ErrUnsupported) {
		return all, err
	}
	return nil, c.untold(ctx, err)
}

// untold turns the refusal of a catalogue into errors.ErrUnsupported, unless it
// is not the catalogue alone that is refused, but everything.
func (c *client) untold(ctx context.Context, err error) error {
	if err := c.ping(ctx); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s does not tell its repositories: %v", errors.ErrUnsupported, c.base.Host, err)
}

// ping asks whether there is a registry that lets us in.
func (c *client) ping(ctx context.Context) error {
	req, err := c.request(ctx, http.MethodGet, "/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}
