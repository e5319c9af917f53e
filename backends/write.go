// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"

	"github.com/sregfs/sregfs/backends/sched"
)

// Push is Pusher.Push. A push that broke off is tried again for as long as each
// try stores more than the last one did; with src.Session, or where the service
// knows what it has, that is not from the start. That ref names the same bytes
// already is success, whatever src.Replaces says: a try was accepted whose answer was
// lost, or somebody else has pushed them. Nothing is changed then.
//
// Errors: those of Pusher; ErrReadOnly.
func (c *Client) Push(ctx context.Context, ref Ref, src Source) (Image, error) {
	img, err := c.push(ctx, ref, src)
	return img, c.fail("push", ref, err)
}

func (c *Client) push(ctx context.Context, ref Ref, src Source) (Image, error) {
	pusher, ok := c.backend.(Pusher)
	switch {
	case !ok:
		return Image{}, c.unsupported("store images")
	case c.opts.ReadOnly:
		return Image{}, ErrReadOnly
	}
	if err := c.checkPush(ref, src); err != nil {
		return Image{}, err
	}
	var img Image
	d := c.delays(ctx)
	var progress stored
	err := d.retry(ctx, func() error {
		tried, t, err := c.begin(ctx, pushSilence*c.opts.MaxElapsed, sched.Transfer)
		if err != nil {
			return err
		}
		watched := src
		watched.Content = &watchedContent{ReaderAt: src.Content, seen: t.alive}
		report := progress.begin(func(now, _ int64, gained bool) {
			t.alive()
			if gained {
				d.progressed(c.opts.MaxElapsed)
			}
			if src.Progress != nil {
				src.Progress(now)
			}
		})
		watched.Progress = func(now int64) { report(now, src.Size) }
		err = Guard(c.opts.Log, func() (err error) { img, err = pusher.Push(tried, ref, watched); return err })
		progress.end()
		return t.end(ctx, tried, err)
	})
	if errors.Is(err, fs.ErrExist) || errors.Is(err, ErrChanged) {
		if now, err := c.StatSource(ctx, ref, src); err == nil && now.Digest == src.Digest {
			return now, nil
		}
	}
	if err == nil {
		err = checkImage(img)
	}
	return img, err
}

// StatSource is Stat for who wants to know whether ref names the bytes of src: then the
// result has their digest. A store on this machine tells no digest that others could
// have made up, but reads a file that is asked for by its digest.
//
// Errors: those of Stat.
func (c *Client) StatSource(ctx context.Context, ref Ref, src Source) (Image, error) {
	img, err := c.Stat(ctx, ref)
	if err != nil || img.Digest != "" || img.Size != src.Size || !c.Caps().Has(CanOpenFile) {
		return img, err
	}
	ref.Version = src.Digest
	if exact, err := c.Stat(ctx, ref); err == nil && exact.Version == img.Version {
		img.Digest = src.Digest
	}
	return img, nil
}

func (c *Client) checkPush(ref Ref, src Source) error {
	if err := c.checkTarget(ref); err != nil {
		return err
	}
	if src.Content == nil || src.Size < 0 || src.Digest == "" {
		return fmt.Errorf("%w: a push needs content, size and digest", fs.ErrInvalid)
	}
	return CheckDigest(src.Digest)
}

// pushSilence times MaxElapsed is how long a push may show no sign of life: a
// registry may need minutes to check and store the whole after its last byte.
const pushSilence = 5

// watchedContent is content whose reading shows that a push is alive.
type watchedContent struct {
	io.ReaderAt
	seen func()
}

func (w *watchedContent) ReadAt(p []byte, off int64) (int, error) {
	w.seen()
	return w.ReaderAt.ReadAt(p, off)
}

// Delete is Deleter.Delete. What the first try removed without an answer
// reaching us is success too.
//
// Errors: those of Deleter; ErrReadOnly.
func (c *Client) Delete(ctx context.Context, img Image) error {
	deleter, ok := c.backend.(Deleter)
	switch {
	case !ok:
		return c.fail("delete", img.Ref, c.unsupported("delete images"))
	case c.opts.ReadOnly:
		return c.fail("delete", img.Ref, ErrReadOnly)
	}
	if err := c.checkName(img.Ref); err != nil {
		return c.fail("delete", img.Ref, err)
	}
	tries := 0
	_, err := once(ctx, c, nil, func(ctx context.Context) (struct{}, error) {
		tries++
		return struct{}{}, deleter.Delete(ctx, img)
	})
	if tries > 1 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return c.fail("delete", img.Ref, err)
}

// Move is Mover.Move. What the first try moved without an answer reaching us is
// success too.
//
// Errors: those of Mover; ErrReadOnly.
func (c *Client) Move(ctx context.Context, img Image, to Ref, replaces string) (Image, error) {
	mover, ok := c.backend.(Mover)
	switch {
	case !ok:
		return Image{}, c.fail("move", img.Ref, c.unsupported("rename images"))
	case c.opts.ReadOnly:
		return Image{}, c.fail("move", img.Ref, ErrReadOnly)
	}
	for _, ref := range []Ref{img.Ref, to} {
		if err := c.checkName(ref); err != nil {
			return Image{}, c.fail("move", ref, err)
		}
	}
	tries := 0
	now, err := once(ctx, c, nil, func(ctx context.Context) (Image, error) {
		tries++
		return mover.Move(ctx, img, to, replaces)
	})
	if tries > 1 && errors.Is(err, fs.ErrNotExist) && img.Digest != "" {
		if there, statErr := c.Stat(ctx, to); statErr == nil && there.Digest == img.Digest {
			return there, nil
		}
	}
	if err == nil {
		err = checkImage(now)
	}
	return now, c.fail("move", img.Ref, err)
}

// recorder returns the backend if it is a Recorder that may be changed.
func (c *Client) recorder() (Recorder, error) {
	r, ok := c.backend.(Recorder)
	switch {
	case !ok:
		return nil, c.unsupported("keep records of images that are elsewhere")
	case c.opts.ReadOnly:
		return nil, ErrReadOnly
	}
	return r, nil
}

// Record is Recorder.Record. Errors: those of Recorder; ErrReadOnly.
func (c *Client) Record(ctx context.Context, ref Ref, location, replaces string) (Image, error) {
	r, err := c.recorder()
	if err == nil {
		err = c.checkName(ref)
	}
	if err != nil {
		return Image{}, c.fail("record", ref, err)
	}
	img, err := r.Record(ctx, ref, location, replaces)
	return img, c.fail("record", ref, err)
}

// MoveOut is Recorder.MoveOut. Errors: those of Recorder; ErrReadOnly.
func (c *Client) MoveOut(ctx context.Context, img Image, to string) (Image, error) {
	r, err := c.recorder()
	if err != nil {
		return Image{}, c.fail("mv", img.Ref, err)
	}
	moved, err := r.MoveOut(ctx, img, to)
	return moved, c.fail("mv", img.Ref, err)
}

// Import is Recorder.Import. Errors: those of Recorder; ErrReadOnly.
func (c *Client) Import(ctx context.Context, dry bool) iter.Seq2[Imported, error] {
	return func(yield func(Imported, error) bool) {
		r, err := c.recorder()
		if err != nil {
			yield(Imported{}, c.failAll("import", "", err))
			return
		}
		for step, err := range r.Import(ctx, dry) {
			if !yield(step, c.failAll("import", "", err)) {
				return
			}
		}
	}
}

// Share is Sharer.Share. It is tried again only while the service turns it away
// for the rate: a second invitation is worse than none.
func (c *Client) Share(ctx context.Context, img Image, with string) (string, error) {
	sharer, ok := c.backend.(Sharer)
	if !ok {
		return "", c.fail("share", img.Ref, c.unsupported("share images"))
	}
	if err := c.checkName(img.Ref); err != nil {
		return "", c.fail("share", img.Ref, err)
	}
	var link string
	d := c.delays(ctx)
	err := d.retry(ctx, func() error {
		tried, t, err := c.begin(ctx, d.left(c.opts.MaxElapsed), sched.Question)
		if err != nil {
			return err
		}
		err = Guard(c.opts.Log, func() (err error) { link, err = sharer.Share(tried, img, with); return err })
		err = t.end(ctx, tried, err)
		if err != nil && !errors.Is(err, ErrRateLimited) {
			return permanent(err)
		}
		return err
	})
	return link, c.fail("share", img.Ref, err)
}
