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

// A watchdog ends one HTTP request when nothing happens for too long: nothing
// of the upload is taken, no answer begins, nothing or next to nothing of the
// body comes.
type watchdog struct {
	cancel context.CancelCauseFunc

	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	body  bool // the answer is here: time runs only while its body is being read
}

// watch returns a context that the watchdog ends, limit from now.
func watch(ctx context.Context, limit time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel}
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

// answered stops the time until the body is read.
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
}

// reason returns why err really happened.
func (w *watchdog) reason(ctx context.Context, err error) error {
	if err != nil && errors.Is(context.Cause(ctx), errIdle) {
		return errIdle
	}
	return err
}

// watchedUpload is a request body: each read of it shows that the last piece
// was taken.
type watchedUpload struct {
	io.ReadCloser
	dog   *watchdog
	limit time.Duration
}

func (u *watchedUpload) Read(p []byte) (int, error) {
	u.dog.expect(u.limit)
	return u.ReadCloser.Read(p)
}

// minProgress is how many bytes of a body have to come in each IdleTimeout:
// a byte now and then is as good as silence, and would go on for years.
const minProgress = 16 << 10

// watchedBody is a response body. How long its reader takes between two reads
// is the reader's affair.
type watchedBody struct {
	io.ReadCloser
	ctx   context.Context //nolint:containedctx // the request's own, to tell why a read failed
	dog   *watchdog
	limit time.Duration
	spent time.Duration // of limit, in reads
	got   int           // bytes meanwhile
}

func (b *watchedBody) Read(p []byte) (int, error) {
	start := time.Now()
	b.dog.timer.Reset(b.limit - b.spent)
	n, err := b.ReadCloser.Read(p)
	b.dog.timer.Stop()
	b.spent += time.Since(start)
	if b.got += n; b.got >= minProgress {
		b.got, b.spent = 0, 0
	}
	if errors.Is(err, io.EOF) {
		return n, err
	}
	return n, b.dog.reason(b.ctx, err)
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.dog.end()
	return err
}
