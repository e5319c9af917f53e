// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends/sched"
)

const (
	// A body that broke off is asked for again, from where it ended. It may do so
	// any number of times as long as each brings LeastProgress; without, for no longer
	// than Client.Timeout, and this many times where nobody waits, or something came
	// each time.
	maxResumed = 5
	// surplusTime is how long what is left of a transfer may take before it is better
	// ended where there are too many.
	surplusTime = time.Second
	resumeMin   = 100 * time.Millisecond
)

var (
	errDrips   = errors.New("the registry sends next to nothing at a time")
	errStalled = errors.New("the transfer stalled")
)

// Drips reports whether err is that of a Transfer whose registry sends next to nothing
// at a time: asking again would go on like that.
func Drips(err error) bool { return errors.Is(err, errDrips) }

// An OpenError is one that Client.Open gave after its own retries: to ask once more
// would be too much.
type OpenError struct{ Err error }

func (e *OpenError) Error() string { return e.Err.Error() }

// Unwrap returns the error of Open.
func (e *OpenError) Unwrap() error { return e.Err }

// TransferOptions say what a Transfer brings, and for whom.
type TransferOptions struct {
	Off, N int64 // the range; N < 0: all there is of an image of unknown size, Off is 0 then
	// Restart is called before an image of unknown size is read from its start again, as
	// its body broke off: without a size nothing tells whether the rest would fit. Nil:
	// that is an error.
	Restart func()
	// Whole says that the service gives no ranges: Off is 0 then, and a transfer that
	// breaks off begins there again if the service does not give the rest.
	Whole bool
	// Demanded says that the transfer was made for a reader: others yield to it.
	Demanded bool
	// Slot is what the first request uses, as it was asked for before; nil if the
	// transfer asks itself. It is released with the transfer.
	Slot *sched.Slot
	// Wanted is closed once somebody waits for the bytes, see Demanded; nil: somebody
	// does.
	Wanted <-chan struct{}
	// Resume reports whether to ask for the rest of a body that broke off; nil: never.
	Resume func() bool
	// Repeat reports whether n bytes may be asked for twice to hurry up; nil: never. It
	// may be called from any goroutine.
	Repeat func(n int64) bool
	// Silence is for how long a body may bring nothing.
	Silence time.Duration
	// Go runs a function in a goroutine, or reports that nothing may be started.
	Go func(func()) bool
}

// A Transfer is a range of an image on its way. It reads as one body, whatever becomes
// of the requests behind it: the rest is asked for again where one breaks off, and asked
// for twice where one is stuck. Each request has a slot of the client's scheduler. One
// goroutine reads it; Promote and Demote may be called from any.
type Transfer struct {
	c    *Client
	img  Image
	ctx  context.Context //nolint:containedctx // of all requests
	opts TransferOptions
	end  int64 // -1 if it is not known

	cur     *request // that is read; nil between two
	hedge   *hedge   // over cur
	resumed bool     // Whole, but broken off: the rest is asked for before all is again
	before  int64    // pos when the last request was made
	tries   int      // without progress
	drips   int      // of them, those that brought something
	moved   time.Time
	err     error

	begun   time.Time // when the answer that is read began
	first   int64     // pos then
	yielded bool      // it was slowed down on purpose

	mu     sync.Mutex // guards the fields below; after a hedge's
	pos    int64      // of the next byte
	slot   *sched.Slot
	urgent bool // a reader waits
	hedged bool // it has been asked for twice
}

// Transfer returns a transfer, which makes no request before it is read. ctx ends it.
func (c *Client) Transfer(ctx context.Context, img Image, opts TransferOptions) *Transfer {
	t := &Transfer{c: c, img: img, ctx: ctx, opts: opts, end: opts.Off + opts.N, moved: time.Now(),
		pos: opts.Off, slot: opts.Slot, urgent: opts.Demanded}
	if opts.N < 0 {
		t.end = -1
	}
	if opts.Wanted == nil {
		t.opts.Wanted = always
	}
	return t
}

// Promote tells that a reader waits now.
func (t *Transfer) Promote() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.urgent = true
	if t.slot != nil {
		t.slot.Promote()
	}
}

// Demote tells that no reader waits any more.
func (t *Transfer) Demote() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.urgent = false
	if t.slot != nil {
		t.slot.Demote()
	}
}

// Read implements io.Reader. It waits between two requests, and yields to demanded
// transfers if it is none.
//
// Errors: io.EOF; *OpenError; errors.ErrUnsupported, if the service gives no ranges;
// errDrips; why the last body broke off; ctx's.
func (t *Transfer) Read(p []byte) (int, error) {
	for t.err == nil && t.pos != t.end {
		if t.cur == nil {
			t.err = t.again(t.open())
			continue
		}
		if t.slot.Yield(t.ctx) {
			t.yielded = true
		}
		if t.end >= 0 {
			p = p[:min(int64(len(p)), t.end-t.pos)]
		}
		n, err := t.cur.read(t.hedge, p)
		if n > 0 {
			t.mu.Lock()
			t.pos += int64(n)
			t.mu.Unlock()
			return n, nil
		}
		switch {
		case errors.Is(err, io.EOF) && t.end < 0:
			t.err = io.EOF
		case errors.Is(err, io.EOF):
			err = fmt.Errorf("%w: the answer ended at byte %d", ErrUnavailable, t.pos)
			fallthrough
		case err != nil:
			t.err = t.again(t.next(err))
		}
	}
	if t.err == nil {
		return 0, io.EOF
	}
	return 0, t.err
}

// Close ends the transfer, unless it was read to its end.
func (t *Transfer) Close() {
	t.drop()
	t.release()
	if t.err == nil {
		t.err = fs.ErrClosed
	}
}

// Speed returns how many bytes of the answer that is read came in, how long that took,
// and whether it has yielded to others meanwhile.
func (t *Transfer) Speed() (n int64, took time.Duration, yielded bool) {
	return t.pos - t.first, time.Since(t.begun), t.yielded
}

// Ending tells that the rest comes in while a request travels.
func (t *Transfer) Ending() {
	if t.slot != nil {
		t.slot.Ending()
	}
}

// Surplus reports whether the transfer is better ended: it takes long, and there are too
// many beside it.
func (t *Transfer) Surplus() bool {
	n, took, _ := t.Speed()
	left := time.Duration(float64(took) * float64(t.end-t.pos) / float64(max(n, 1)))
	return left > surplusTime && t.slot != nil && t.slot.Surplus()
}

// open makes the next request, and a second one if it gets stuck.
// Errors: errors.ErrUnsupported; *OpenError; ctx's.
func (t *Transfer) open() error {
	t.before = t.pos
	if err := t.acquire(); err != nil {
		return err
	}
	off := t.pos
	if t.opts.Whole && !t.resumed {
		off = 0
	}
	r := newRequest(Demanded(t.ctx, t.opts.Wanted), off)
	r.slot = t.slot
	h := t.watch(r)
	n := int64(-1)
	if t.end >= 0 {
		n = t.end - off
	}
	if err := r.open(t.c, t.img, n); err != nil {
		t.cur, t.hedge = r, h
		return t.next(err)
	}
	return t.begin(r, h)
}

// begin reads r from now on.
func (t *Transfer) begin(r *request, h *hedge) error {
	t.cur, t.hedge = r, h
	h.begin()
	t.slot.Answered()
	if _, err := io.CopyN(io.Discard, readerFunc(func(p []byte) (int, error) { return r.read(h, p) }), t.pos-r.off); err != nil {
		return t.next(fmt.Errorf("%w: %v", ErrUnavailable, err))
	}
	t.begun, t.first, t.yielded = time.Now(), t.pos, false
	return nil
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// next goes on with the second request where that was quicker; else it returns why the
// one that was read ended.
func (t *Transfer) next(err error) error {
	former, second := t.cur, t.hedge.stop()
	t.cur = nil
	if second == nil {
		err = former.reason(err)
		former.close()
		t.release()
		return err
	}
	former.close()
	return t.begin(second, t.watch(second))
}

// drop ends the request that is read.
func (t *Transfer) drop() {
	if t.cur == nil {
		return
	}
	if second := t.hedge.stop(); second != nil {
		second.close()
	}
	t.cur.close()
	t.cur = nil
}

// again draws the conclusions from err, with which a request ended: nil to go on.
func (t *Transfer) again(err error) error {
	if err == nil {
		return nil
	}
	if t.pos > t.before {
		t.resumed = t.opts.Whole
	}
	if t.pos-t.before >= LeastProgress && t.end >= 0 {
		t.tries, t.drips, t.moved = 0, 0, time.Now()
	}
	_, final := errors.AsType[*OpenError](err)
	switch {
	case t.ctx.Err() != nil:
		return t.ctx.Err()
	case errors.Is(err, errors.ErrUnsupported) && !final && t.opts.Whole:
		t.resumed = false
		return nil
	case final || !broken(err):
		return err
	case errors.Is(err, errStalled):
		t.c.sched.Stalled()
	}
	t.tries++
	if t.pos > t.before && t.end >= 0 {
		t.drips++
	}
	if t.drips > maxResumed {
		return fmt.Errorf("%w: %w", errDrips, gaveUp(err))
	}
	return t.pause(err)
}

// pause waits before the rest, or all of an image of unknown size, is asked for again.
// It returns err if there is no point in going on.
func (t *Transfer) pause(err error) error {
	left := t.c.Timeout() - time.Since(t.moved)
	wait := rand.N(2 * (resumeMin << min(t.tries, 4)))
	if !t.worthWhile(left, wait) {
		return gaveUp(err)
	}
	if t.end >= 0 {
		wait = min(wait, left)
	}
	if !Pause(t.ctx, wait, nil) {
		return t.ctx.Err()
	}
	if t.end < 0 {
		t.opts.Restart()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.pos = 0
	}
	return nil
}

// worthWhile reports whether to make another request, if that is wait from now and left
// is left of the client's timeout.
func (t *Transfer) worthWhile(left, wait time.Duration) bool {
	switch {
	case t.end < 0:
		return t.opts.Restart != nil && (left > 0 || t.tries <= maxResumed)
	case left <= 0 || t.opts.Resume == nil:
		return false
	case !demand(t.opts.Wanted).raised() && (t.tries > maxResumed || wait > left):
		return false
	}
	return t.opts.Resume() // or nobody is left who would wait for it
}

// acquire waits for a slot. Errors: ctx's.
func (t *Transfer) acquire() error {
	t.mu.Lock()
	if t.slot == nil {
		priority := sched.Background
		if t.urgent {
			priority = sched.Demanded
		}
		t.slot = t.c.sched.Ask(priority)
	}
	slot := t.slot
	t.mu.Unlock()
	return slot.Wait(t.ctx)
}

// release gives the slot back.
func (t *Transfer) release() {
	t.mu.Lock()
	slot := t.slot
	t.slot = nil
	t.mu.Unlock()
	if slot != nil {
		slot.Release()
	}
}

// broken reports whether a body that ended with err may go on with another request.
func broken(err error) bool {
	return errors.Is(err, errStalled) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, ErrUnavailable) || errors.Is(err, ErrRateLimited) || errors.Is(err, context.DeadlineExceeded)
}

// gaveUp is err in the sentinels that callers know.
func gaveUp(err error) error {
	switch {
	case errors.Is(err, errStalled):
		return fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	case errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrUnavailable):
		return fmt.Errorf("%w: answers end before their length: %w", ErrUnavailable, err)
	}
	return err
}
