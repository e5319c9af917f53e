// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends/sched"
)

// A CopySource is the image of one copy.
type CopySource struct {
	Image Image // as Stat of Backend gave it
	// All takes over what the image's name means for other architectures, too. Within one
	// registry that is done in any case.
	All bool

	// Replaces and Commit are as in Source.
	Replaces string
	Commit   func() error
	// Progress, if not nil, is called with the bytes that are stored and those there are to
	// store. Calls do not overlap.
	Progress func(stored, total int64)
	// Session, if not nil, returns that of the upload of the bytes with a digest, see
	// Source.Session.
	Session func(digest string) Session
	// Content, if not nil, returns what reads a blob of the image, by its Digest and Size, or
	// nil to leave that to the client of Backend. It may be called from several goroutines.
	Content func(blob Image) io.ReaderAt

	// Client.Copy sets these.

	Backend Backend // where the image is
	// Ask runs a request to Backend within its limits, and again if that may help. The
	// errors are those of a Client.
	Ask func(ctx context.Context, request func(context.Context) error) error
}

// Copy is Copier.Copy of an image of from, tried again as Push is. Bytes that travel are
// read through from.
//
// Errors: those of Copier; ErrReadOnly; those of reading, which are from's.
func (c *Client) Copy(ctx context.Context, from *Client, src CopySource, to Ref) (Image, error) {
	img, err := c.copy(ctx, from, src, to)
	if from != c && failedAt(err, from.name) {
		return Image{}, err
	}
	return img, c.fail("copy", to, err)
}

// failedAt reports whether an error is that of a client.
func failedAt(err error, name string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Remote == name
}

func (c *Client) copy(ctx context.Context, from *Client, src CopySource, to Ref) (Image, error) {
	copier, ok := c.backend.(Copier)
	switch {
	case !ok || from == c && c.opts.Concurrency < 2: // reading would wait for the slot of writing
		return Image{}, c.unsupported("copy images")
	case c.opts.ReadOnly:
		return Image{}, ErrReadOnly
	}
	if err := c.checkTarget(to); err != nil {
		return Image{}, err
	}
	src.Image = unversioned(src.Image)
	src.Backend = from.backend
	src.Ask = func(ctx context.Context, request func(context.Context) error) error {
		_, err := once(ctx, from, nil, func(ctx context.Context) (struct{}, error) { return struct{}{}, request(ctx) })
		return from.fail("open", src.Image.Ref, err)
	}
	var img Image
	var progress stored
	d := c.delays(ctx)
	err := d.retry(ctx, func() error {
		tried, t, err := c.begin(ctx, pushSilence*c.opts.MaxElapsed, sched.Transfer)
		if err != nil {
			return err
		}
		reading := &copyReading{from: from, ctx: tried, content: src.Content, seen: t.alive}
		defer reading.close()
		watched := src
		watched.Content = reading.open
		watched.Progress = progress.begin(func(now, total int64, gained bool) {
			t.alive()
			if gained {
				d.progressed(c.opts.MaxElapsed)
			}
			if src.Progress != nil {
				src.Progress(now, total)
			}
		})
		err = Guard(c.opts.Log, func() (err error) { img, err = copier.Copy(tried, watched, to); return err })
		progress.end()
		if why := reading.failed(); err != nil && why != nil && ctx.Err() == nil {
			err = why
		}
		if from != c && failedAt(err, from.name) {
			_ = t.end(ctx, tried, nil)
			return permanent(err) // it was tried again there
		}
		return t.end(ctx, tried, err)
	})
	if err == nil {
		err = sameCopied(src.Image, img)
	}
	if err == nil {
		err = checkImage(img)
	}
	return img, err
}

// sameCopied compares what is stored with what was to be copied.
// Errors: ErrCorrupt.
func sameCopied(src, img Image) error {
	was, _, _ := strings.Cut(src.Digest, ":")
	is, _, _ := strings.Cut(img.Digest, ":")
	if was == is && src.Digest != img.Digest {
		return fmt.Errorf("%w: copied %s, stored %s", ErrCorrupt, src.Digest, img.Digest)
	}
	return nil
}

// copyReading reads what one try of a copy asks for.
type copyReading struct {
	from    *Client
	ctx     context.Context //nolint:containedctx // of the try
	content func(Image) io.ReaderAt
	seen    func()

	mu      sync.Mutex // guards the field below
	readers []*RangeReader
}

// open is CopySource.Content.
func (r *copyReading) open(blob Image) io.ReaderAt {
	if r.content != nil {
		if own := r.content(blob); own != nil {
			return &watchedContent{ReaderAt: own, seen: r.seen}
		}
	}
	reader := r.from.RangeReader(r.ctx, blob)
	r.mu.Lock()
	r.readers = append(r.readers, reader)
	r.mu.Unlock()
	return &watchedContent{ReaderAt: reader, seen: r.seen}
}

// failed returns why reading failed, if it did.
func (r *copyReading) failed() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reader := range r.readers {
		if err := reader.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (r *copyReading) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, reader := range r.readers {
		reader.Close()
	}
}
