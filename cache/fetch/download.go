// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
)

// A Sink is the file that the bytes go into.
type Sink interface {
	// WriteAt is that of the file. Errors: ErrNoRoom; those of the local disk.
	io.WriterAt
	// Reserve makes room for n bytes. Errors: ErrNoRoom.
	Reserve(n int64) error
	// Complete adds a chunk of which all bytes were written to the set of those that
	// are here. It is called with the download's lock held.
	Complete(chunk int64)
	// Changed tells that a chunk was completed, or that a fetch or the background has
	// ended. It must not block.
	Changed()
}

// Options are those of a Download.
type Options struct {
	Size int64      // of the blob, in bytes
	Have chunks.Set // which chunks are here; Sink.Complete adds to it, and others may take away
	Sink Sink
	Log  *slog.Logger
	// Go runs a function in a goroutine, or reports that nothing may be started.
	Go func(func()) bool
	// InUse reports whether somebody has the blob open.
	InUse func() bool

	NoBackground bool          // fetch only what is read, to 1 MiB
	Streams      int           // parallel fetches in the background at most; 0: what the scheduler allows
	Delay        time.Duration // from the first read to the fetching of the rest
	Patience     time.Duration // of a read without any progress; 0: a little more than Source.Timeout
	// Probe, if not nil, is called before each read that begins near the start and
	// finds something missing: that is somebody mounting or inspecting the blob.
	Probe func()
}

// A Download brings the bytes of one blob into a file, as they are asked for. For
// concurrent use.
type Download struct {
	work
	through through
}

// A work is what is under way and to come.
type work struct {
	opts    Options
	ctx     context.Context //nolint:containedctx // of the fetches, which serve many callers
	sources sources

	mu         sync.Mutex // guards the fields below, and those of fetches
	ranges     ranges
	ended      bool  // nothing is fetched any more
	end        error // why; nil if all bytes can be read
	idle       bool  // nothing may start any more
	failure    failure
	full       time.Time // no room on the disk until then
	wholeOnly  bool      // its service ignores ranges
	received   int64     // bytes that came in
	heard      time.Time // when the last of them did
	again      int64     // bytes asked for twice to save time
	awaited    int       // readers that wait for all of the blob
	background *background
	armed      bool  // the timer that starts the background runs
	frontier   int64 // where the last demanded read ended
}

// New returns a download that has not begun. Its fetches end when ctx does; Offer must
// be called before anything else.
func New(ctx context.Context, opts Options) *Download {
	d := &Download{work: work{opts: opts, ctx: ctx, ranges: newRanges(opts.Size, opts.Have)}}
	d.through.d = &d.work
	return d
}

// Offer adds a place to fetch from, as the first choice.
func (d *Download) Offer(s Source) {
	others := d.sources.offer(s)
	d.mu.Lock()
	defer d.mu.Unlock()
	if others && d.failure.err != nil {
		d.failure = failure{} // it was another's
	}
}

// Sources returns the places to fetch from, the best first.
func (d *Download) Sources() []Source { return d.sources.list() }

// End ends the download: with nil when all bytes can be read, else with what readers
// are told from then on. Only the first call counts. Fetches under way end with the
// context.
func (d *Download) End(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return
	}
	d.ended, d.end = true, err
	if err == nil {
		d.failure = failure{}
	}
}

// Stop lets nothing start any more.
func (d *Download) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = true
}

// StopIfIdle is Stop if nothing is under way, which it reports.
func (d *Download) StopIfIdle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.idle = d.idle || d.quiet()
	return d.quiet()
}

// Idle reports whether nothing is under way.
func (d *Download) Idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.quiet()
}

// quiet is called with mu held.
func (d *work) quiet() bool { return d.ranges.running == 0 && d.background == nil }

// Running returns how many fetches are under way.
func (d *Download) Running() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ranges.running
}

// Complete reports whether all chunks are here.
func (d *Download) Complete() bool { return d.ranges.complete() }

// Failure returns the last failure that a reader was told of, nil if there was none
// since.
func (d *Download) Failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure.err
}

// Received returns how many bytes came in, and when the last of them did.
func (d *work) Received() (n int64, last time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.received, d.heard
}

// Pause lets nothing be fetched until then, as the disk has lost what it had.
func (d *Download) Pause(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = until
}

// Written returns up to where the fetch that brings a chunk has written it; ok is
// false if no fetch brings it.
func (d *Download) Written(chunk int64) (end int64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.ranges.owner[chunk]
	if f == nil {
		return 0, false
	}
	return f.pos, true
}

// usable says why nothing can be fetched now for a reader who began to wait then. Call
// with mu held.
func (d *work) usable(began time.Time) error {
	switch {
	case d.ended && d.end != nil:
		return d.end
	case d.idle || d.ctx.Err() != nil:
		return ErrClosed
	case time.Now().Before(d.full):
		return ErrNoRoom
	}
	return d.failure.holds(began)
}

// Patience is how long a reader waits without any progress. The source gives up a
// little earlier, and knows the reason.
func (d *work) Patience() time.Duration {
	return cmp.Or(d.opts.Patience, d.sources.best().Timeout()+5*time.Second)
}

// streamed reports whether the blob must be fetched in one stream from its start. Call
// with mu held.
func (d *work) streamed() bool {
	if _, divided := d.sources.divided(); divided {
		return false
	}
	return d.wholeOnly || d.sources.best().Scheduler().Ranges.None()
}

// start lets a claimed fetch go; after, if not nil, is called at its end. It reports
// false, and undoes the claim, when nothing may be started. Call with mu held.
func (d *work) start(f *fetch, after func()) bool {
	run := func() {
		f.finish(backends.Guard(d.opts.Log, f.run))
		if after != nil {
			after()
		}
	}
	if d.opts.Go(run) {
		return true
	}
	d.ranges.drop(f)
	close(f.done)
	return false
}

// want notes that somebody waits for all of the blob, until done is called.
func (d *work) want() (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.awaited++
	for _, f := range d.ranges.owner {
		f.want()
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.awaited--
	}
}

func (d *work) isAwaited() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.awaited > 0
}
