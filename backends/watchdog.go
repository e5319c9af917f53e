// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A watchdog ends one HTTP request when no answer begins for too long. While a body
// is on its way, up or down, the clock is the rateWatch.
type watchdog struct {
	cancel  context.CancelCauseFunc
	release func() // of the line

	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	body  bool // the answer is here
}

// watch returns a context that the watchdog ends, limit from now. release is called
// at the end.
func watch(ctx context.Context, limit time.Duration, release func()) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel, release: sync.OnceFunc(release)}
	w.timer = time.AfterFunc(limit, func() { cancel(errIdle) })
	return ctx, w
}

var errIdle = fmt.Errorf("%w: the registry fell silent, or nearly so", context.DeadlineExceeded)

// expect sets the limit anew. It does nothing once the answer is here: a
// service may answer while the upload is still being sent.
func (w *watchdog) expect(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.body {
		w.timer.Reset(limit)
	}
}

// rest stops the time until expect.
func (w *watchdog) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
}

// answered stops the time for good.
func (w *watchdog) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.body = true
	w.timer.Stop()
}

// end releases the request.
func (w *watchdog) end() {
	w.answered()
	w.cancel(nil)
	w.release()
}

// reason returns why err really happened.
func (w *watchdog) reason(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errIdle) {
		return errIdle
	}
	return err
}

// watchedUpload is a request body: each read of it shows that the last piece was
// taken.
type watchedUpload struct {
	io.ReadCloser
	dog  *watchdog
	rate *rateWatch
	last int // bytes of the piece that is being sent
}

// Read gives out small pieces: a slow line takes one well within a window.
func (u *watchedUpload) Read(p []byte) (int, error) {
	u.dog.rest()
	u.rate.rest(u.last)
	n, err := u.ReadCloser.Read(p[:min(len(p), u.rate.piece())])
	u.last = n
	u.rate.wait()
	return n, err
}

// Close is called when all is sent, but for what is in the transport's buffer.
func (u *watchedUpload) Close() error {
	u.rate.rest(0)
	u.dog.expect(u.rate.window)
	return u.ReadCloser.Close()
}

// watchedBody is a response body. How long its reader takes between two reads
// is the reader's affair.
type watchedBody struct {
	io.ReadCloser
	ctx  context.Context //nolint:containedctx // the request's own, to tell why a read failed
	dog  *watchdog
	rate *rateWatch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.rate.wait()
	n, err := b.ReadCloser.Read(p)
	b.rate.rest(n)
	if n > 0 {
		progressed(b.ctx)
	}
	if errors.Is(err, io.EOF) {
		return n, err
	}
	return n, b.dog.reason(b.ctx, err)
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.rate.rest(0)
	b.dog.end()
	return err
}
