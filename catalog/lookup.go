// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// If a registry takes longer than this, its last answer is used, if there is one. The
// request goes on, and its answer is used by the next lookup.
const patience = 3 * time.Second

// Lookup returns the image that ref names now, from the store while that is fresh, else
// from the registry; if that is down, its last answer is used. With a ref.Version that
// exact version is meant, and the result's Ref has it too: else it would mean another
// image as soon as the tag moves. A name that a run has pinned means what it pinned.
//
// Errors: those of backends.Backend.Stat.
func (c *images) Lookup(ctx context.Context, remote string, ref backends.Ref) (backends.Image, error) {
	ref, err := c.Exact(ctx, remote, ref)
	if err != nil {
		return backends.Image{}, err
	}
	img, err := c.lookup(ctx, remote, ref)
	if err == nil {
		img.Ref.Version = ref.Version
	}
	return img, err
}

func (c *images) lookup(ctx context.Context, remote string, ref backends.Ref) (backends.Image, error) {
	r, ref, err := c.subject(remote, ref)
	if err != nil {
		return backends.Image{}, err
	}
	if img, ok := c.Pinned(r.Name, ref); ok {
		return img, nil
	}
	if r.Local() {
		return c.statNow(ctx, r, ref)
	}
	s, err := c.store()
	if err != nil {
		return backends.Image{}, err
	}
	known, fresh := c.known(s, r.Name, ref)
	switch {
	case fresh:
		return known.Image, nil
	case r.Client == nil && known.Is(index.Full):
		return known.Image, nil
	case r.Client == nil:
		return backends.Image{}, r.Unopened()
	}
	if err := c.knownMissing(r.Name, ref); err != nil {
		return backends.Image{}, err
	}
	if known.Is(index.Full) {
		return c.askAgain(ctx, s, r, ref, known)
	}
	if known.Is(index.InListing) {
		c.prefetch(s, r, ref, known)
	}
	return c.ask(ctx, s, r, ref)
}

// subject returns the remote, and the ref with the default tag if it has none.
func (c *images) subject(remote string, ref backends.Ref) (Remote, backends.Ref, error) {
	r, err := c.Remote(remote)
	if err != nil {
		return r, ref, err
	}
	if ref.Version == "" {
		ref.Tag = cmp.Or(ref.Tag, backends.DefaultTag)
	}
	if err := ref.Check(); err != nil {
		return r, ref, &backends.Error{Op: "stat", Remote: remote, Ref: ref, Err: err}
	}
	return r, ref, nil
}

// knownMissing returns the answer of a moment ago that there is no such image.
func (c *images) knownMissing(remote string, ref backends.Ref) error {
	a := c.negative.get(string(index.RefKey(remote, ref)))
	if a.err == nil || !c.fresh(a.at, c.opts.NegTTL) {
		return nil
	}
	return a.err
}

// known returns what is stored of ref, and whether it is fresh.
func (c *images) known(s *index.Index, remote string, ref backends.Ref) (index.Entry, bool) {
	e, ok := s.Entry(remote, ref)
	if ok && c.entryFresh(s, remote, ref.Collection, e) {
		return e, true
	}
	if ref.Version == "" || ref.Tag == "" {
		return e, false
	}
	// What is known of the tag tells of the version that it means.
	tag := ref
	tag.Version = ""
	current, fresh := c.known(s, remote, tag)
	if fresh && (current.Image.Version == ref.Version || current.Image.Digest == ref.Version) {
		return current, true
	}
	return e, false
}

func (c *images) entryFresh(s *index.Index, remote, collection string, e index.Entry) bool {
	switch {
	case !e.Is(index.Full):
		return false
	case c.fresh(e.Seen, c.opts.ListTTL):
		return true
	case e.Is(index.FromList):
		h, ok := s.Header(remote, collection)
		return ok && c.listFresh(h)
	}
	return false
}

// askAgain is ask for an image that is known but not fresh.
func (c *images) askAgain(ctx context.Context, s *index.Index, r Remote, ref backends.Ref, known index.Entry) (backends.Image, error) {
	away, probe := c.health.away(r.Name, c.Now(), c.opts.NegTTL)
	if away && !probe {
		return known.Image, nil
	}
	if away {
		c.tasks.start(func(ctx context.Context) { c.ask(ctx, s, r, ref) }) //nolint:errcheck // ask has noted it
		return known.Image, nil
	}
	c.prefetch(s, r, ref, known)
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	img, err := c.ask(wait, s, r, ref)
	if err != nil && ctx.Err() == nil && Passing(err) {
		c.Note(r.Name, err) // also after patience only
		c.opts.Log.Debug("registry does not answer; using what it said before", "remote", r.Name, "image", ref.String(), "err", err)
		return known.Image, nil
	}
	return img, err
}

// Stat asks the registry about one image, and does not store its answer. Without a
// ref.Tag the usual one is meant.
//
// Errors: those of backends.Backend.Stat.
func (c *images) Stat(ctx context.Context, remote string, ref backends.Ref) (backends.Image, error) {
	r, ref, err := c.subject(remote, ref)
	if err != nil {
		return backends.Image{}, err
	}
	return c.statNow(ctx, r, ref)
}

// Current is Lookup for a caller that is about to replace the image: the version is not out
// of date.
func (c *images) Current(ctx context.Context, r Remote, ref backends.Ref) (backends.Image, error) {
	if r.Local() {
		return c.statNow(ctx, r, ref)
	}
	s, err := c.store()
	if err != nil {
		return backends.Image{}, err
	}
	if err := c.knownMissing(r.Name, ref); err != nil {
		return backends.Image{}, err
	}
	img, err := c.ask(ctx, s, r, ref)
	if err != nil && Passing(err) && r.Policy.Async {
		if e, ok := s.Entry(r.Name, ref); ok && e.Is(index.Full) {
			return e.Image, nil
		}
	}
	return img, err
}
