// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// CompleteImage is the completeness gate: is r a whole SIF or squashfs image, and
// which?
//
// Errors: inspect.ErrIncomplete, which is a backends.ErrCorrupt, and
// inspect.ErrNotImage, which is an fs.ErrInvalid, with what is wrong; those of r.
func CompleteImage(r io.ReaderAt, size int64) (format string, err error) {
	return inspect.Complete(r, size)
}

// IsWhole reports whether r holds a whole image: see spool.Options.Whole.
func IsWhole(r io.ReaderAt, size int64) bool {
	_, err := CompleteImage(r, size)
	return err == nil
}

// Mounted reports whether a file system in the image is mounted for writing: what
// is in the file is then no state to publish, but one on the way to the next.
func Mounted(r io.ReaderAt, size int64) bool {
	return errors.Is(inspect.Unmounted(r, size), inspect.ErrMounted)
}

// gate returns what a draft for that target must pass before it is published.
func gate(target spool.Target) spool.Check {
	if !target.InPlace {
		return CompleteImage
	}
	return func(r io.ReaderAt, size int64) (string, error) {
		if err := inspect.Unmounted(r, size); err != nil {
			return "", err
		}
		return CompleteImage(r, size)
	}
}

// Publish seals the draft and publishes it where its target says; with
// Target.Async it returns once the draft is sealed and queued. After success the
// draft is gone (its data is the warm cache entry, or the local image). The same
// bytes under the same name already there is success, whatever the policy. A second Publish of a
// draft under way waits for the first. When ctx ends before the registry has
// all, the draft stays, sealed; what others wait for goes on.
//
// Errors: those of CompleteImage if it is not a whole image, inspect.ErrMounted for
// one that was changed in place and still is; fs.ErrExist or
// backends.ErrChanged if the name means something else than it did when the
// copy began; those of backends.Pusher; those of spool.Draft.Seal.
func (c *Catalog) Publish(ctx context.Context, d *spool.Draft) error {
	info, err := d.Seal(ctx, gate(d.Info().Target))
	if err != nil {
		return pushError(info.Target.Remote, info.Target.Ref, err)
	}
	d.Supersede()
	// Whether the bytes are the same is known only from the registry: nobody is told
	// before that they are safe.
	if info.Target.Async && info.Target.Replaces != spool.OnlySame && d.Withdrawn() == nil && c.enqueue(info.ID, maxPending) {
		return nil
	}
	return c.publishNow(ctx, d, nil)
}

// pushError says which push it was that failed, unless err does.
func pushError(remote string, ref backends.Ref, err error) error {
	if _, ok := errors.AsType[*backends.Error](err); ok {
		return err
	}
	return &backends.Error{Op: "push", Remote: remote, Ref: ref, Err: err}
}

// upload is one try to publish a sealed draft.
func (c *Catalog) upload(ctx context.Context, s *State, d *spool.Draft, run *run) error {
	target := d.Info().Target
	release, err := c.uploads.turns.Lock(ctx, string(imageKey(target.Remote, target.Ref)))
	if err != nil {
		return pushError(target.Remote, target.Ref, err)
	}
	defer release()
	target = d.Info().Target // an earlier upload to the same name may have changed it
	r, err := c.live(target.Remote)
	if err == nil {
		err = r.takes(target.Ref)
	}
	if err != nil {
		return c.uploadFailed(ctx, d, target, err)
	}
	src, err := d.Begin()
	if err != nil {
		return pushError(target.Remote, target.Ref, err)
	}
	img, err := c.uploadSource(ctx, r, target, src, run)
	if err != nil {
		return c.uploadFailed(ctx, d, target, err)
	}
	return c.uploaded(s, r, d, img)
}

// uploadSource pushes the sealed draft, unless the registry has it already.
func (c *Catalog) uploadSource(ctx context.Context, r Remote, target spool.Target, src backends.Source, run *run) (backends.Image, error) {
	if target.Replaces == spool.OnlySame {
		src.Replaces = ""
	}
	store, tell := src.Progress, run.told(c.uploads)
	src.Progress = func(stored int64) {
		store(stored)
		tell(stored, src.Size)
	}
	img, err := c.push(ctx, r, target.Ref, src)
	if target.Replaces == spool.OnlySame && errors.Is(err, fs.ErrExist) {
		err = Taken(target.Remote, target.Ref)
	}
	return img, err
}

// push is Client.Push with a look before it (why send what is there, or will be
// refused?) and one after it: what the registry says it has must be what was sent.
// What an odd answer to the look says is doubtful, never a refusal.
func (c *Catalog) push(ctx context.Context, r Remote, ref backends.Ref, src backends.Source) (backends.Image, error) {
	current, err := c.askNow(ctx, r, func(ctx context.Context) (backends.Image, error) { return r.Client.StatSource(ctx, ref, src) })
	switch {
	case err == nil && current.Digest == src.Digest && backends.SameName(ref, current.Ref) == nil:
		return current, nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		if refused := src.ReplaceAllowed(ref, current, err == nil); refused != nil && !perhapsSame(current, src) {
			return backends.Image{}, pushError(r.Name, ref, refused)
		}
	case !errors.Is(err, fs.ErrPermission): // who may write need not be allowed to read
		return backends.Image{}, &doubtful{err}
	}
	img, err := r.Client.Push(ctx, ref, src)
	c.health.note(r.Name, err, c.now())
	if err == nil {
		if err := verifyPushed(img, src); err != nil {
			return backends.Image{}, pushError(r.Name, ref, err)
		}
		return withDigest(clean(img), src), nil
	}
	return backends.Image{}, judged(err)
}

// perhapsSame reports whether an image that is in the way can be what is pushed.
// Where the service tells no SHA-256 the backend decides.
func perhapsSame(current backends.Image, src backends.Source) bool {
	return !isSHA256(current.Digest) && (current.Size < 0 || current.Size == src.Size)
}

// verifyPushed compares what the registry says it stored with what was sent.
func verifyPushed(img backends.Image, src backends.Source) error {
	if isSHA256(img.Digest) && img.Digest != src.Digest {
		return fmt.Errorf("%w: sent %s, stored %s", backends.ErrCorrupt, src.Digest, img.Digest)
	}
	if img.Size >= 0 && img.Size != src.Size {
		return fmt.Errorf("%w: sent %d bytes, stored %d", backends.ErrCorrupt, src.Size, img.Size)
	}
	return nil
}

// withDigest adds what we know and a service need not keep.
func withDigest(img backends.Image, src backends.Source) backends.Image {
	if !isSHA256(img.Digest) {
		img.Digest = src.Digest
	}
	if img.Size < 0 {
		img.Size = src.Size
	}
	if img.Format == "" {
		img.Format = src.Format
	}
	return img
}

// uploadFailed keeps the draft for another try.
func (c *Catalog) uploadFailed(ctx context.Context, d *spool.Draft, target spool.Target, cause error) error {
	note := cause
	if ctx.Err() != nil {
		note = nil // given up by who waited, not refused
		if !errors.Is(cause, context.Canceled) {
			cause = &backends.Error{Op: "push", Remote: target.Remote, Ref: target.Ref, Err: ctx.Err()}
		}
	}
	if err := d.End(note); err != nil {
		c.opts.Log.Warn("the state of an upload could not be noted", "draft", d.Info().ID, "err", err)
	}
	if d.Withdrawn() == nil && (final(cause) || errors.Is(cause, fs.ErrPermission)) {
		d.Answered()
	}
	return pushError(target.Remote, target.Ref, cause)
}

// uploaded ends a draft that the registry has: nothing that goes wrong here is an
// error any more. The draft goes last: should the program end before, the next one
// finds it, and its bytes in the registry, and does what is left to do.
func (c *Catalog) uploaded(s *State, r Remote, d *spool.Draft, img backends.Image) error {
	info, told := d.Info(), false
	err := d.Publish(img.Version, func(path string) error {
		if !r.atHand() && s.Cache != nil && isSHA256(img.Digest) {
			if err := s.Cache.Adopt(path, img.Digest, info.Size); err != nil {
				c.opts.Log.Warn("a pushed image could not be kept in the cache", "image", info.Target.Ref.String(), "err", err)
			}
		}
		c.published(s.Store, r, info.Target.Ref, img)
		c.rebase(s, info, img) // once the name is known to be taken: who creates it meanwhile looks again
		told = true
		return nil
	})
	if err != nil {
		c.opts.Log.Warn("a published draft could not be removed", "draft", info.ID, "err", err)
	}
	if !told {
		c.published(s.Store, r, info.Target.Ref, img)
	}
	return nil
}

// rebase lets the other drafts for the same name, which will be published after this
// one, replace what it has become: they were made by somebody who had seen it, or are
// written side by side with it, or by the same open file, whose own publication it
// is. One that failed before this one was made is none of these.
func (c *Catalog) rebase(s *State, done spool.Info, img backends.Image) {
	c.uploads.published.Add(1)
	for _, later := range s.Spool.Drafts() {
		t := later.Target
		if later.ID == done.ID || t.Replaces == spool.OnlySame || t.Remote != done.Target.Remote || t.Ref != done.Target.Ref {
			continue
		}
		comes := later.ID > done.ID || s.Spool.Held(later.ID) || later.State == spool.Writing || later.Queued()
		if t.Follows != done.ID && (!comes || t.Replaces != done.Target.Replaces || !c.overwritable(t.Remote)) {
			continue
		}
		d, err := s.Spool.Draft(later.ID)
		if err != nil {
			continue
		}
		t.Replaces = img.Version
		if err := d.Retarget(t); err != nil {
			c.opts.Log.Warn("a later upload will find the name taken", "draft", later.ID, "err", err)
		}
		shut(d)
	}
}

func (c *Catalog) overwritable(remote string) bool {
	r, err := c.Remote(remote)
	return err == nil && r.Policy.Overwrite
}

// published stores what a name means since we pushed it, and tells.
func (c *Catalog) published(store Store, r Remote, ref backends.Ref, img backends.Image) {
	if err := c.records.unmake(r.Name, ref.Collection); err != nil {
		c.opts.Log.Warn("a collection made by hand could not be forgotten", "remote", r.Name, "collection", ref.Collection, "err", err)
	}
	if r.atHand() {
		c.watchers.emit(
			Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection},
			Event{Kind: ImageChanged, Remote: r.Name, Collection: ref.Collection, Ref: ref})
		return
	}
	key := string(imageKey(r.Name, ref))
	c.absent.drop(key)
	c.failed.drop(key)
	c.asking.Forget(key)
	for at := ref.Collection; at != ""; at, _ = parentOf(at) {
		c.failed.drop(string(headerKey(r.Name, at)))
	}
	unlock := c.lock(r.Name, ref.Collection)
	c.trees.Lock()
	c.own.add(c.now(), []byte(key))
	c.own.add(c.now(), childKeys(r.Name, ref.Collection)...)
	old, _ := readEntry(store, r.Name, ref)
	now := entry{flags: listed | full, seen: c.now(), image: img}
	changes := append([]KV{{[]byte(key), encodeEntry(now, ref)}}, c.history(store, r.Name, ref, old, now)...)
	parents := ancestors(store, r.Name, ref.Collection, listed)
	err := applyOwn(store, append(changes, parents...)...)
	c.trees.Unlock()
	unlock()
	if err != nil {
		c.opts.Log.Warn("a pushed image could not be stored", "remote", r.Name, "image", ref.String(), "err", err)
	}
	c.watchers.emit(Event{Kind: ListingChanged, Remote: r.Name, Collection: ref.Collection})
	c.tellAbove(r.Name, ref.Collection, parents)
	c.watchers.emit(Event{Kind: ImageChanged, Remote: r.Name, Collection: ref.Collection, Ref: ref})
}
