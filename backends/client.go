// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"os"
	"time"
)

// A Client is a remote as the rest of the program sees it: a backend with
// checked names, retries, limits and errors that say what was being done. All
// methods may be called from many goroutines at once. A capability that the
// backend lacks gives errors.ErrUnsupported.
type Client struct {
	name    string
	backend Backend
	caps    Caps
	opts    ClientOptions
}

// ClientOptions tune a Client. The zero value has the defaults.
type ClientOptions struct {
	ReadOnly    bool          // Push and Delete give ErrReadOnly
	MaxElapsed  time.Duration // for one operation with all its retries; default 60 s; a push or a started body has no such limit
	Concurrency int           // requests under way at once, bodies included; default 32
	Log         *slog.Logger
}

// NewClient returns a client of b for the remote name. b may be closed through
// it if it is an io.Closer.
func NewClient(name string, b Backend, opts ClientOptions) *Client {
	return &Client{name: name, backend: b, caps: CapsOf(b), opts: opts}
}

// Name returns the remote's name.
func (c *Client) Name() string { return c.name }

// Caps reports what the remote can do: the backend's capabilities, less
// CanPush and CanDelete where the client is read-only.
func (c *Client) Caps() Caps { panic("TODO") }

// CheckName reports whether ref could be a name here, without a request.
// Errors: fs.ErrInvalid, with the rule that ref breaks.
func (c *Client) CheckName(ref Ref) error { panic("TODO") }

// Stat is Backend.Stat with retries.
func (c *Client) Stat(ctx context.Context, ref Ref) (Image, error) { panic("TODO") }

// Open is Backend.Open with retries until the body starts. The body gives
// io.ErrUnexpectedEOF if it ends before the bytes that img.Size promises, and
// never more than n bytes. A body under way is not resumed: the caller asks for
// the rest.
func (c *Client) Open(ctx context.Context, img Image, off, n int64) (io.ReadCloser, error) {
	panic("TODO")
}

// OpenFile opens the file of img on this machine.
// Errors: errors.ErrUnsupported if the remote's images are not local files.
func (c *Client) OpenFile(ctx context.Context, img Image) (*os.File, error) { panic("TODO") }

// List is Lister.List. It is retried only while it has yielded nothing.
// Entries with impossible names are left out and logged.
func (c *Client) List(ctx context.Context, collection string) iter.Seq2[Entry, error] { panic("TODO") }

// Search is Searcher.Search, as List.
func (c *Client) Search(ctx context.Context, query string) iter.Seq2[Image, error] { panic("TODO") }

// Push is Pusher.Push with retries where src.Session or the service allows.
func (c *Client) Push(ctx context.Context, ref Ref, src Source) (Image, error) { panic("TODO") }

// Delete is Deleter.Delete.
func (c *Client) Delete(ctx context.Context, img Image) error { panic("TODO") }

// Share is Sharer.Share.
func (c *Client) Share(ctx context.Context, img Image, with string) (string, error) { panic("TODO") }

// Watch is Watcher.Watch; a stream that fails is opened again, with back-off,
// after a Change that covers everything.
func (c *Client) Watch(ctx context.Context) iter.Seq2[Change, error] { panic("TODO") }

// Build is Builder.Build, without retries.
func (c *Client) Build(ctx context.Context, img Image, dst io.WriterAt) (int64, error) { panic("TODO") }

// Close closes the backend if it can be closed. A second Close does nothing.
func (c *Client) Close() error { panic("TODO") }

// Collect gathers seq into a slice, up to its first error.
func Collect[T any](seq iter.Seq2[T, error]) ([]T, error) {
	var all []T
	for v, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
	return all, nil
}

// Fail returns a sequence of one error.
func Fail[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		yield(zero, err)
	}
}

var _ = errors.ErrUnsupported
