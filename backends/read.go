// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"

	"github.com/sregfs/sregfs/backends/sched"
)

// Stat is Backend.Stat with retries.
func (c *Client) Stat(ctx context.Context, ref Ref) (Image, error) {
	if err := c.checkName(ref); err != nil {
		return Image{}, c.fail("stat", ref, err)
	}
	img, err := once(ctx, c, &c.stats, func(ctx context.Context) (Image, error) { return c.backend.Stat(ctx, ref) })
	if err == nil {
		err = checkImage(img)
	}
	if err != nil {
		return Image{}, c.fail("stat", ref, err)
	}
	return img, nil
}

// Open is Backend.Open with retries until the body starts. The body gives
// io.ErrUnexpectedEOF if it ends before the bytes that img.Size promises, and
// never more than n bytes. A body under way is not resumed: the caller asks for
// the rest.
func (c *Client) Open(ctx context.Context, img Image, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, c.fail("open", img.Ref, fmt.Errorf("%w: negative offset", fs.ErrInvalid))
	}
	img = unversioned(img)
	if err := CheckSize(img.Size); err != nil {
		return nil, c.fail("open", img.Ref, err) // what was stored may be older than this rule
	}
	want := n
	if img.Size >= 0 {
		rest := max(img.Size-off, 0)
		if n < 0 || n > rest {
			want = rest
		}
	}
	if want == 0 {
		return http.NoBody, nil
	}
	b := &body{log: c.opts.Log, want: want, exact: img.Size >= 0}
	b.fail = func(err error) error { return c.fail("read", img.Ref, bodyError(ctx, err)) }
	d := c.delays(ctx)
	err := d.retry(ctx, func() error {
		tried, t, err := c.begin(ctx, d.left(c.opts.MaxElapsed), sched.Transfer)
		if err != nil {
			return err
		}
		if b.src, err = c.guardedOpen(tried, img, off, n); err != nil {
			return t.end(ctx, tried, err)
		}
		b.release = t.keep(ctx, tried)
		return nil
	})
	if err != nil {
		return nil, c.fail("open", img.Ref, err)
	}
	return b, nil
}

// guardedOpen is Backend.Open with a Guard.
func (c *Client) guardedOpen(ctx context.Context, img Image, off, n int64) (body io.ReadCloser, err error) {
	defer recovered(c.opts.Log, &err)
	return c.backend.Open(ctx, img, off, n)
}

// unversioned returns img as Stat gave it: what is to be read, img.Version says.
func unversioned(img Image) Image {
	img.Ref.Version = ""
	return img
}

// OpenFile opens the file of img on this machine.
// Errors: errors.ErrUnsupported if the remote's images are not local files.
func (c *Client) OpenFile(ctx context.Context, img Image) (*os.File, error) {
	o, ok := c.backend.(FileOpener)
	if !ok {
		return nil, c.fail("open", img.Ref, c.unsupported("give files of this machine"))
	}
	var f *os.File
	err := Guard(c.opts.Log, func() (err error) { f, err = o.OpenFile(ctx, unversioned(img)); return err })
	return f, c.fail("open", img.Ref, err)
}

// Layers is Layered.Layers with retries.
func (c *Client) Layers(ctx context.Context, img Image) (Layers, error) {
	l, ok := c.backend.(Layered)
	if !ok {
		return Layers{}, c.fail("open", img.Ref, c.unsupported("tell what container images are made of"))
	}
	layers, err := once(ctx, c, &c.stats, func(ctx context.Context) (Layers, error) { return l.Layers(ctx, unversioned(img)) })
	return layers, c.fail("open", img.Ref, err)
}

// ListsArchives is ArchiveLister's; false if the backend is none.
func (c *Client) ListsArchives() bool {
	l, ok := c.backend.(ArchiveLister)
	return ok && l.ListsArchives()
}

// Unfit is Layered.Unfit.
func (c *Client) Unfit(img Image, why error) {
	if l, ok := c.backend.(Layered); ok {
		l.Unfit(unversioned(img), why)
	}
}
