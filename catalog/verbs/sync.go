// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// An Action is what is to be done with one image, so that a place has what another one has.
type Action string

// The actions.
const (
	ActionCopy    Action = "copy"    // it is missing
	ActionReplace Action = "replace" // it is another image, or may be
	ActionSame    Action = "same"
	ActionDelete  Action = "delete" // the other place has it no more
	ActionExtra   Action = "extra"  // the same, but it stays
	ActionSkip    Action = "skip"   // it is no image
)

// A Difference is one image of two places that are compared.
type Difference struct {
	Action Action  `json:"action"`
	From   *Record `json:"from,omitempty"` // nil if it is not there
	To     Record  `json:"to"`             // of an image that is not there its URI, remote and ref
	Reason string  `json:"reason,omitempty"`
}

// CompareOptions say what Compare looks for.
type CompareOptions struct {
	// Delete looks for images that the second place has and the first one has not, and asks
	// the first one for each of them.
	Delete bool `json:"delete,omitempty"`
}

// compareWorkers is how many questions are asked at once.
const compareWorkers = 8

// Compare yields how the images at to differ from those at from, in the order of their
// names. A place is a pattern, as in Choose, that names its remote; "REMOTE" and
// "REMOTE/COLLECTION" mean a remote and a collection, too. to is never more than a
// collection: if it is one, what is below the collection of from is to be below it; if it is a
// remote, all collections keep their names; "" is the local one. Both services are asked:
// nothing that was known before counts, and nothing is read.
//
// After an error more may differ than was told, and nothing is to be deleted: a listing
// failed, told less than there is, or had no image.
//
// Errors: those of Choose; fs.ErrInvalid if one place is in the other; fs.ErrNotExist if
// there is no image at from.
func (v *transfers) Compare(ctx context.Context, from, to string, o CompareOptions) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		c, err := v.newComparing(from, to)
		if err == nil {
			err = c.run(ctx, o)
		}
		if c != nil {
			for _, d := range c.found {
				if !yield(d, nil) {
					return
				}
			}
		}
		if err != nil {
			yield(Difference{}, err)
		}
	}
}

// A comparing is one comparison.
type comparing struct {
	*transfers
	from, to catalog.Remote
	pattern  pattern
	below    string // the collection of pattern, or of the one image that it means
	into     string // the collection of to; "" if they keep their names

	mu    sync.Mutex // guards the field below
	found []Difference
}

// place makes a pattern of what names a place.
func place(text string) string {
	if !strings.Contains(text, "://") {
		remote, rest, _ := strings.Cut(text, "/")
		text = remote + "://" + rest
	}
	last := text[strings.LastIndexByte(text, '/')+1:]
	if last == "" || strings.ContainsAny(text, "*?[") || strings.ContainsAny(last, ":@") {
		return text
	}
	return text + "/"
}

func (v *transfers) newComparing(from, to string) (*comparing, error) {
	c := &comparing{transfers: v}
	var err error
	if c.pattern, err = v.readPattern(place(from)); err != nil {
		return nil, err
	}
	if !c.pattern.many {
		u, err := backends.ParseURI(place(from))
		if err != nil {
			return nil, err
		}
		c.pattern.remote, c.below = u.Remote, u.Ref.Collection
	} else {
		c.below = c.pattern.collection
	}
	if c.pattern.remote == "" {
		return nil, backends.Saying(fs.ErrInvalid, "%s does not say of which remote: write REMOTE://%s", from, strings.TrimPrefix(from, "://"))
	}
	dest, err := v.readPattern(place(cmp.Or(to, localRemote)))
	if err != nil {
		return nil, err
	}
	if !dest.many || dest.match != nil {
		return nil, backends.Saying(fs.ErrInvalid, "%s is no remote or collection to copy into (sreg cp copies one image)", to)
	}
	c.into = dest.collection
	if c.from, err = v.cat.Live(c.pattern.remote); err != nil {
		return nil, err
	}
	if c.to, err = v.cat.Live(dest.remote); err != nil {
		return nil, err
	}
	return c, c.check(from, to)
}

// check refuses what can be refused before anything is asked.
func (c *comparing) check(from, to string) error {
	if err := c.to.Takes(backends.Ref{Collection: cmp.Or(c.into, "x"), Name: "x", Tag: "x"}); err != nil && !errors.Is(err, fs.ErrInvalid) {
		return &backends.Error{Op: "copy", Remote: c.to.Name, Err: err}
	}
	inside := func(a, b string) bool { return b == "" || a == b || index.Below(a, b) }
	if c.from.Name == c.to.Name && (c.into == "" || inside(c.into, c.below) || inside(c.below, c.into)) {
		return backends.Saying(fs.ErrInvalid, "%s and %s are one in the other", from, cmp.Or(to, localRemote))
	}
	return nil
}

func (c *comparing) run(ctx context.Context, o CompareOptions) error {
	have, listErr := c.sources(ctx)
	there, err := c.list(ctx, c.to, cmp.Or(c.into, c.below))
	listed := err == nil
	switch {
	case errors.Is(err, fs.ErrNotExist):
		listed = true // nothing is there yet
	case err != nil && (o.Delete || !errors.Is(err, errors.ErrUnsupported)):
		return errors.Join(listErr, err)
	}
	images := make(map[backends.Ref]backends.Image, len(there))
	for _, img := range there {
		images[img.Ref] = img
	}
	wanted := make(map[backends.Ref]bool, len(have))
	g := new(errgroup.Group)
	g.SetLimit(compareWorkers)
	for _, img := range have {
		ref := c.target(img.Ref)
		wanted[ref] = true
		now, ok := images[ref]
		g.Go(func() error {
			return backends.Guard(c.log, func() error { c.compare(ctx, img, ref, now, ok || !listed); return nil })
		})
	}
	if listErr == nil && len(have) > 0 && c.pattern.many {
		for _, img := range there {
			origin, ok := c.origin(img.Ref)
			if ok && !wanted[img.Ref] && c.pattern.has(c.from.Name, origin) {
				g.Go(func() error {
					return backends.Guard(c.log, func() error { c.extra(ctx, img, origin, o.Delete); return nil })
				})
			}
		}
	}
	err = g.Wait()
	slices.SortFunc(c.found, func(a, b Difference) int { return cmp.Compare(a.To.URI, b.To.URI) })
	if err == nil && listErr == nil && len(have) == 0 {
		listErr = backends.NotFound("no image matches %s", c.pattern.text)
	}
	return errors.Join(listErr, err, ctx.Err())
}

// sources returns the images to be copied, also those that were told before an error.
func (c *comparing) sources(ctx context.Context) ([]backends.Image, error) {
	if !c.pattern.many {
		u, err := backends.ParseURI(c.pattern.text)
		if err != nil {
			return nil, err
		}
		if u.Ref.Version != "" {
			return nil, backends.Saying(fs.ErrInvalid, "%s is a version: sreg cp copies it under a tag", c.pattern.text)
		}
		return []backends.Image{{Ref: u.Ref}}, nil
	}
	all, err := c.list(ctx, c.from, c.below)
	if (len(all) == 0 || errors.Is(err, fs.ErrNotExist)) && c.pattern.match == nil && c.below != "" {
		// lab://vsoch/hello/ may be the name of images in lab://vsoch/.
		parent, name := index.Parent(c.below)
		var beside []backends.Image
		if beside, err = c.list(ctx, c.from, parent); err == nil {
			all, c.below, c.pattern.collection, c.pattern.name = beside, parent, parent, name
		}
	}
	return slices.DeleteFunc(all, func(img backends.Image) bool { return !c.pattern.has(c.from.Name, img.Ref) }), err
}

// target is the name that an image of from gets.
func (c *comparing) target(ref backends.Ref) backends.Ref {
	if c.into != "" {
		ref.Collection = rebase(ref.Collection, c.below, c.into)
	}
	ref.Version = ""
	return ref
}

// origin is the inverse of target; ok is false for what is not below to.
func (c *comparing) origin(ref backends.Ref) (origin backends.Ref, ok bool) {
	at := cmp.Or(c.into, c.below)
	if at != "" && ref.Collection != at && !index.Below(ref.Collection, at) {
		return ref, false
	}
	if c.into != "" {
		ref.Collection = rebase(ref.Collection, c.into, c.below)
	}
	return ref, true
}

// rebase moves a collection that is one or below it to another one.
func rebase(collection, one, other string) string {
	rest := strings.TrimPrefix(strings.TrimPrefix(collection, one), "/")
	switch {
	case rest == "":
		return other
	case other == "":
		return rest
	}
	return other + "/" + rest
}

// list asks a service for all images in a collection and below it; "" is all of them.
//
// Errors: those of backends.Lister, also for a part that is not told.
func (v *transfers) list(ctx context.Context, r catalog.Remote, collection string) ([]backends.Image, error) {
	var mu sync.Mutex
	var found []backends.Image
	var errs []error
	for level := []string{collection}; len(level) > 0 && ctx.Err() == nil; {
		var next []string
		g := new(errgroup.Group)
		g.SetLimit(compareWorkers)
		for _, at := range level {
			g.Go(func() error {
				images, below, err := listOne(ctx, r, at)
				mu.Lock()
				defer mu.Unlock()
				found, next = append(found, images...), append(next, below...)
				if at != collection && errors.Is(err, fs.ErrNotExist) {
					err = nil // it has gone meanwhile
				}
				errs = append(errs, err)
				return nil
			})
		}
		_ = g.Wait() // the errors are in errs
		level = next
	}
	err := errors.Join(errs...)
	v.cat.Note(r.Name, err)
	if r.Local() && collection == "" && errors.Is(err, fs.ErrNotExist) {
		err = nil // the store has not been made yet
	}
	return found, err
}

func listOne(ctx context.Context, r catalog.Remote, collection string) (images []backends.Image, below []string, err error) {
	var untold error
	for e, err := range r.Client.List(ctx, collection) {
		switch {
		case err != nil:
			return images, below, err
		case e.Untold != nil: // the rest is whole
			untold = &backends.Error{Op: "list", Remote: r.Name, Subject: collection, Err: fmt.Errorf("not all of it is told: %w", e.Untold)}
		case e.Collection != "":
			below = append(below, e.Collection)
		default:
			images = append(images, index.Clean(e.Image))
		}
	}
	return images, below, untold
}

// ask asks a service about one image.
func (c *comparing) ask(ctx context.Context, r catalog.Remote, ref backends.Ref) (backends.Image, error) {
	return c.cat.Ask(ctx, r, func(ctx context.Context) (backends.Image, error) { return r.Client.Stat(ctx, ref) })
}

// compare compares an image of from with what the name ref means at to: now, as far as a
// listing told it. maybe is false if nothing has that name.
func (c *comparing) compare(ctx context.Context, img backends.Image, ref backends.Ref, now backends.Image, maybe bool) {
	d := Difference{Action: ActionCopy, To: Record{URI: backends.URI{Remote: c.to.Name, Ref: ref}.String(), Remote: c.to.Name, Ref: ref, Size: -1}}
	if img.Version == "" {
		told, err := c.ask(ctx, c.from, img.Ref)
		switch {
		case noImage(err):
			d.Action, d.Reason = ActionSkip, err.Error()
		case errors.Is(err, fs.ErrNotExist) && c.pattern.many:
			return // it has gone meanwhile
		case err != nil:
			d.Reason = err.Error() // the copy fails with that, or it was for a moment
		default:
			img = told
		}
	}
	from := c.record(c.from.Name, img)
	d.From = &from
	if d.Action == ActionCopy && maybe {
		var err error
		if now.Version == "" {
			now, err = c.ask(ctx, c.to, ref)
		}
		switch {
		case err == nil:
			d.To = c.record(c.to.Name, now)
			d.Action = ActionReplace
			if img.Version != "" && c.uploads.Compare(ctx, c.from, img, c.to, now) == uploads.Same {
				d.Action = ActionSame
			}
		case noImage(err):
			d.Action = ActionReplace
		case !errors.Is(err, fs.ErrNotExist):
			d.Reason = err.Error()
		}
	}
	c.add(d)
}

// noImage reports whether err says that a name means something that is no image.
func noImage(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, backends.ErrNoVariant) || errors.Is(err, backends.ErrNotImage)
}

// extra notes an image of to that from did not list. It is not deleted unless from says that
// it has none.
func (c *comparing) extra(ctx context.Context, img backends.Image, origin backends.Ref, deletes bool) {
	d := Difference{Action: ActionExtra}
	if deletes {
		switch _, err := c.ask(ctx, c.from, origin); {
		case err == nil:
			d.Reason = "it is there, though no listing tells it"
		case !errors.Is(err, fs.ErrNotExist) || errors.Is(err, backends.ErrNoVariant):
			d.Reason = err.Error()
		default:
			d.Action = ActionDelete
		}
	}
	if img.Version == "" {
		now, err := c.ask(ctx, c.to, img.Ref)
		if err != nil {
			return // it is no image, or has gone meanwhile
		}
		img = now
	}
	d.To = c.record(c.to.Name, img)
	c.add(d)
}

func (c *comparing) add(d Difference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = append(c.found, d)
}
