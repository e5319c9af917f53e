// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// A registry that takes longer than this gets the answer it gave last, if there
// is one; the question goes on and its answer counts for the next look.
const patience = 3 * time.Second

// Lookup returns the image that ref names now, from the store while that is fresh, else
// by asking; a registry that is down gets the answer it gave last. With a
// ref.Version that exact version is meant, and the result's Ref says so too:
// without it the name would mean another image as soon as the tag moves.
//
// Errors: those of backends.Backend.Stat.
func (c *Catalog) Lookup(ctx context.Context, remote string, ref backends.Ref) (backends.Image, error) {
	img, err := c.lookup(ctx, remote, ref)
	if err == nil {
		img.Ref.Version = ref.Version
	}
	return img, err
}

func (c *Catalog) lookup(ctx context.Context, remote string, ref backends.Ref) (backends.Image, error) {
	r, ref, err := c.subject(remote, ref)
	if err != nil {
		return backends.Image{}, err
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
	case c.believedAbsent(r.Name, ref):
		return backends.Image{}, missing(r.Name, ref)
	case known.Is(index.Full):
		return c.askAgain(ctx, s, r, ref, known)
	}
	if known.Is(index.InListing) {
		c.lookAhead(s, r, ref, known)
	}
	return c.ask(ctx, s, r, ref)
}

// subject checks what a lookup is about.
func (c *Catalog) subject(remote string, ref backends.Ref) (Remote, backends.Ref, error) {
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

func missing(remote string, ref backends.Ref) error {
	return &backends.Error{Op: "stat", Remote: remote, Ref: ref, Err: backends.NotFound("no such image")}
}

func (c *Catalog) believedAbsent(remote string, ref backends.Ref) bool {
	at := c.absent.at(string(index.RefKey(remote, ref)))
	return !at.IsZero() && c.fresh(at, c.opts.NegTTL)
}

// known returns what is stored of ref, and whether it is still to be believed.
func (c *Catalog) known(s *index.Index, remote string, ref backends.Ref) (index.Entry, bool) {
	e, ok := s.Entry(remote, ref)
	if ok && c.entryFresh(s, remote, ref.Collection, e) {
		return e, true
	}
	if ref.Version == "" || ref.Tag == "" {
		return e, false
	}
	// The version that the tag means now needs no question of its own.
	tag := ref
	tag.Version = ""
	current, fresh := c.known(s, remote, tag)
	if fresh && (current.Image.Version == ref.Version || current.Image.Digest == ref.Version) {
		return current, true
	}
	return e, false
}

func (c *Catalog) entryFresh(s *index.Index, remote, collection string, e index.Entry) bool {
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
func (c *Catalog) askAgain(ctx context.Context, s *index.Index, r Remote, ref backends.Ref, known index.Entry) (backends.Image, error) {
	away, probe := c.health.away(r.Name, c.Now(), c.opts.NegTTL)
	if away && !probe {
		return known.Image, nil
	}
	if away {
		c.tasks.start(func(ctx context.Context) { c.ask(ctx, s, r, ref) }) //nolint:errcheck // ask has noted it
		return known.Image, nil
	}
	c.lookAhead(s, r, ref, known)
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	img, err := c.ask(wait, s, r, ref)
	if err != nil && ctx.Err() == nil && Passing(err) {
		c.Note(r.Name, err) // also where only our patience ended
		c.opts.Log.Debug("registry does not answer; using what it said before", "remote", r.Name, "image", ref.String(), "err", err)
		return known.Image, nil
	}
	return img, err
}

// Stat asks the registry about one image, and does not store its answer. Without a
// ref.Tag the usual one is meant.
//
// Errors: those of backends.Backend.Stat.
func (c *Catalog) Stat(ctx context.Context, remote string, ref backends.Ref) (backends.Image, error) {
	r, ref, err := c.subject(remote, ref)
	if err != nil {
		return backends.Image{}, err
	}
	return c.statNow(ctx, r, ref)
}

// statNow asks without storing the answer.
func (c *Catalog) statNow(ctx context.Context, r Remote, ref backends.Ref) (backends.Image, error) {
	if r.Client == nil {
		return backends.Image{}, r.Unopened()
	}
	return c.Ask(ctx, r, func(ctx context.Context) (backends.Image, error) { return r.Client.Stat(ctx, ref) })
}

// Ask puts a question about one image to a registry that can be asked, for
// Options.Timeout at most.
func (c *Catalog) Ask(ctx context.Context, r Remote, stat func(context.Context) (backends.Image, error)) (backends.Image, error) {
	limited, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	img, err := stat(limited)
	if ctx.Err() == nil { // else it is the caller who had no time
		c.Note(r.Name, err)
	}
	return index.Clean(img), err
}

// ask puts a question to the registry, once however many want to know, and
// stores the answer; a refusal is not asked for again at once. The question does not end with ctx: others may wait for it.
func (c *Catalog) ask(ctx context.Context, s *index.Index, r Remote, ref backends.Ref) (backends.Image, error) {
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

func (c *Catalog) learn(ctx context.Context, s *index.Index, r Remote, ref backends.Ref) (backends.Image, error) {
	asked := c.Now()
	defer c.own.ask(asked)()
	img, err := c.statNow(ctx, r, ref)
	switch {
	case err == nil:
		return c.keep(s, r.Name, ref, img, asked), nil
	case errors.Is(err, fs.ErrNotExist):
		if !c.own.since(index.RefKey(r.Name, ref), asked) {
			if errors.Is(err, backends.ErrNoVariant) { // what there is instead is worth telling again
				c.failed.add(string(index.RefKey(r.Name, ref)), err, c.Now().Add(c.opts.NegTTL))
			} else {
				c.absent.add(string(index.RefKey(r.Name, ref)), c.Now())
			}
			c.forget(s, r.Name, ref)
		}
	case errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized): // whoever logs in need not wait
		c.failed.add(string(index.RefKey(r.Name, ref)), err, c.Now().Add(c.failureLife(err)))
	}
	return backends.Image{}, err
}

// keep stores an answer to a question of that time, and returns it with what was
// known besides. A store that takes no writes makes the next look ask again.
func (c *Catalog) keep(s *index.Index, remote string, ref backends.Ref, img backends.Image, asked time.Time) backends.Image {
	key := index.RefKey(remote, ref)
	defer c.absent.drop(string(key))
	unlock := c.lock(remote, ref.Collection)
	old, have := s.Entry(remote, ref)
	if c.own.since(key, asked) {
		// We published or deleted since: the answer is older than that.
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
	if ref.Version == "" && have && changed(old, now) {
		c.watchers.emit(Event{Kind: ImageChanged, Remote: remote, Collection: ref.Collection, Ref: ref})
	}
	if ref.Version == "" && have && (old.Shown() != now.Shown() || old.Shown() && renamed(old, now)) {
		c.watchers.emit(Event{Kind: ListingChanged, Remote: remote, Collection: ref.Collection})
	}
	return now.Image
}

// renamed reports whether an image has another file name than before: a listing
// of names can but guess the format.
func renamed(old, now index.Entry) bool {
	a, b := old.Image.Format, now.Image.Format
	return backends.Ext(a) != backends.Ext(b) || a != b && backends.IsPlain(a)
}

// changed reports whether a tree has to look again at an image.
func changed(old, now index.Entry) bool {
	a, b := old.Image, now.Image
	return old.Is(index.Full) != now.Is(index.Full) || a.Version != b.Version || a.Size != b.Size || !a.Modified.Equal(b.Modified)
}

// forget drops a name that the registry does not have any more.
func (c *Catalog) forget(s *index.Index, remote string, ref backends.Ref) {
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

// Current is Lookup for those who are about to replace the Image: its version
// must not be out of date.
func (c *Catalog) Current(ctx context.Context, r Remote, ref backends.Ref) (backends.Image, error) {
	if r.Local() {
		return c.statNow(ctx, r, ref)
	}
	s, err := c.store()
	if err != nil {
		return backends.Image{}, err
	}
	if c.believedAbsent(r.Name, ref) {
		return backends.Image{}, missing(r.Name, ref)
	}
	img, err := c.ask(ctx, s, r, ref)
	if err != nil && Passing(err) && r.Policy.Async {
		if e, ok := s.Entry(r.Name, ref); ok && e.Is(index.Full) {
			return e.Image, nil
		}
	}
	return img, err
}
