// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// images is the layer of single images: what their names mean.
type images struct {
	listings
	asking     singleflight.Group // a question about one image is asked once at a time
	prefetcher prefetcher         // lookups that follow the order of the names
}

// statNow asks without storing the answer.
func (c *images) statNow(ctx context.Context, r Remote, ref backends.Ref) (backends.Image, error) {
	if r.Client == nil {
		return backends.Image{}, r.Unopened()
	}
	return c.Ask(ctx, r, func(ctx context.Context) (backends.Image, error) { return r.Client.Stat(ctx, ref) })
}

// Ask puts a question about one image to a registry that can be asked, for
// Options.Timeout at most.
func (c *images) Ask(ctx context.Context, r Remote, stat func(context.Context) (backends.Image, error)) (backends.Image, error) {
	limited, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	img, err := stat(limited)
	if ctx.Err() == nil { // else the caller gave up, and the remote may be well
		c.Note(r.Name, err)
	}
	return index.Clean(img), err
}

// ask asks the registry about one image and stores the answer. Callers that ask at the
// same time share one request, which therefore does not end with ctx. A refusal is
// remembered for a while.
func (c *images) ask(ctx context.Context, s *index.Index, r Remote, ref backends.Ref) (backends.Image, error) {
	if err := c.failed.recent(string(index.RefKey(r.Name, ref)), c.Now()); err != nil {
		return backends.Image{}, err
	}
	answer := c.asking.DoChan(string(index.RefKey(r.Name, ref)), func() (any, error) {
		var img backends.Image
		err := c.tasks.run(func(ctx context.Context) (err error) {
			img, err = c.learn(ctx, s, r, ref)
			return err
		})
		return img, err
	})
	select {
	case res := <-answer:
		return res.Val.(backends.Image), res.Err
	case <-ctx.Done():
		return backends.Image{}, &backends.Error{Op: "stat", Remote: r.Name, Ref: ref, Err: ctx.Err()}
	}
}

func (c *images) learn(ctx context.Context, s *index.Index, r Remote, ref backends.Ref) (backends.Image, error) {
	asked := c.Now()
	defer c.writes.ask(asked)()
	img, err := c.statNow(ctx, r, ref)
	switch {
	case err == nil:
		return c.keep(s, r.Name, ref, img, asked), nil
	case errors.Is(err, fs.ErrNotExist):
		if !c.writes.since(index.RefKey(r.Name, ref), asked) {
			if errors.Is(err, backends.ErrNoVariant) { // the message lists the variants that there are
				c.failed.add(string(index.RefKey(r.Name, ref)), err, c.Now().Add(c.opts.NegTTL))
			} else {
				c.negative.add(string(index.RefKey(r.Name, ref)), absence{err, c.Now()})
			}
			c.forget(s, r.Name, ref)
		}
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized): // a login helps at once
		c.failed.add(string(index.RefKey(r.Name, ref)), err, c.Now().Add(c.failureLife(err)))
	}
	return backends.Image{}, err
}

// keep stores the answer to a question that was asked at that time, and returns it
// together with what was known before. If it cannot be stored, the next lookup asks again.
func (c *images) keep(s *index.Index, remote string, ref backends.Ref, img backends.Image, asked time.Time) backends.Image {
	key := index.RefKey(remote, ref)
	defer c.negative.drop(string(key))
	unlock := c.lock(remote, ref.Collection)
	old, have := s.Entry(remote, ref)
	if c.writes.since(key, asked) {
		// We published or deleted meanwhile, so the answer is out of date.
		unlock()
		if have && old.Is(index.Full) {
			return old.Image
		}
		return img
	}
	now := index.Entry{Flags: old.Flags&(index.InListing|index.ByName) | index.Full, Seen: c.Now(), Image: index.Merge(old, img)}
	if old.Is(index.FromList) && old.Image.Version == img.Version {
		now.Flags |= index.FromList
	}
	changes := []index.KV{{Key: key, Value: index.Encode(now, ref)}}
	changes = append(changes, c.history(s, remote, ref, old, now)...)
	err := s.Apply(changes...)
	unlock()
	if err != nil {
		c.opts.Log.Warn("an answer could not be stored", "remote", remote, "image", ref.String(), "err", err)
	}
	if spelled := now.Image.Ref; ref.Version == "" && spelled != ref {
		c.keep(s, remote, spelled, img, asked) // under this name it is listed
	}
	if ref.Version == "" {
		c.saw(remote, withRef(now.Image, ref), false)
	}
	if ref.Version == "" && have && changed(old, now) {
		c.watchers.emit(Event{Kind: ImageChanged, Remote: remote, Collection: ref.Collection, Ref: ref})
	}
	if ref.Version == "" && have && (old.Shown() != now.Shown() || old.Shown() && renamed(old, now)) {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: ref.Collection})
	}
	return now.Image
}

func withRef(img backends.Image, ref backends.Ref) backends.Image {
	img.Ref = ref
	return img
}

// forget drops a name that the registry no longer has.
func (c *images) forget(s *index.Index, remote string, ref backends.Ref) {
	unlock := c.lock(remote, ref.Collection)
	old, have := s.Entry(remote, ref)
	var err error
	if have {
		err = s.ApplyOwn(index.KV{Key: index.RefKey(remote, ref)})
	}
	unlock()
	if err != nil {
		c.opts.Log.Warn("an answer could not be stored", "remote", remote, "image", ref.String(), "err", err)
	}
	if !have || ref.Version != "" {
		return
	}
	c.watchers.emit(Event{Kind: ImageGone, Remote: remote, Collection: ref.Collection, Ref: ref})
	if old.Shown() {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: ref.Collection})
	}
}

// doubt makes the next lookup of ref ask the registry: what is stored proved to be old.
func (c *images) doubt(s *index.Index, remote string, ref backends.Ref) {
	ref.Version = ""
	defer c.lock(remote, ref.Collection)()
	e, ok := s.Entry(remote, ref)
	if !ok || !e.Is(index.Full) {
		return
	}
	e.Flags &^= index.Full | index.FromList
	if err := s.Apply(index.KV{Key: index.ImageKey(remote, ref), Value: index.Encode(e, ref)}); err != nil {
		c.opts.Log.Warn("a doubt could not be stored", "remote", remote, "image", ref.String(), "err", err)
	}
}
