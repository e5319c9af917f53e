// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/chunks"
)

// A data is the bytes of one blob while somebody has it open or it is being
// fetched: all handles of a blob share it.
//
// Readers look at state and have without a lock. What is missing they ask for
// (demand.go), flights fetch it (flight.go, fetch.go), the filler fetches the
// rest (fill.go), and one keeper makes it durable, verifies it and puts it in
// its place (keeper.go).
//
// Locks are taken in this order: item.busy, disk, item.mu, mu, Cache.mu; that of the schedulers last.
type data struct {
	item   *item
	size   int64
	digest string // to verify; "" if there is none

	file    atomic.Pointer[os.File] // for reading; replaced once, by Adopt
	info    os.FileInfo             // of the file, if it was whole when it was opened; else nil
	shared  bool                    // the file is another cache's
	phase   atomic.Int32            // partial, whole or dead
	have    chunks.Set              // chunks that can be read; empty if it was whole when it was opened
	settled chan struct{}           // closed when whole or dead
	given   *given                  // which chunks readers got; nil if it was whole when it was opened
	loose   loose                   // ranges in memory, when the disk is full

	wholeOnly atomic.Bool // its service ignores ranges
	hinted    atomic.Bool // the hints were asked for, or are not needed

	ctx    context.Context //nolint:containedctx // of the flights, which serve many callers; ends with the cache or when they are in vain
	cancel context.CancelFunc
	kick   chan struct{} // wakes the keeper
	kept   chan struct{} // closed when the keeper has ended

	disk    sync.Mutex     // held while the map or the names of the files change
	written *os.File       // for writing; nil when whole
	hash    *hasher        // of the keeper; nil without a digest
	under   *commit        // of the keeper: the one under way; nil if there is none
	durable chunks.Set     // chunks on stable storage
	recent  *chunks.Recent // chunks written since; guarded by mu
	retired []*os.File     // replaced ones that readers may still use

	mu         sync.Mutex // guards the fields below and those of flights
	users      int        // handles and the keeper: the last one closes the files
	failure    error      // why it is dead
	sources    []source   // where it can be fetched, the best first
	owner      map[int64]*flight
	flights    int
	received   int64     // bytes that came in
	heard      time.Time // when the last of them did
	awaited    int       // readers that wait for all of the blob
	stream     *flight   // the last one of a service without ranges; may have landed
	dirty      int64     // bytes that the map does not know of
	dirtySince time.Time
	stolen     int64 // bytes asked for twice to hurry up
	trouble    trouble
	filler     *filler   // nil if none runs
	armed      bool      // the timer that starts the filler runs
	frontier   int64     // where the last demanded read ended
	full       time.Time // no room on the disk until then
	idle       bool      // the keeper has ended: nothing may start any more
	rate       float64   // bytes a second of one background stream, smoothed

	matched chan struct{} // closed while all is here and the digest matched
}

// The phases of a data. It goes from partial to one of the others, once.
const (
	partial int32 = iota
	whole
	dead
)

// A source is a place that a blob can be fetched from.
type source struct {
	client *backends.Client
	image  backends.Image
	sched  *sched.Scheduler
}

// maxSources bounds how many names of one blob are remembered as places to fetch it from.
const maxSources = 8

// offer adds a source, as the first choice.
func (d *data) offer(s source) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sources = slices.DeleteFunc(d.sources, s.same)
	d.sources = slices.Insert(d.sources, 0, s)
	d.sources = d.sources[:min(len(d.sources), maxSources)]
	if len(d.sources) > 1 && d.trouble.err != nil {
		d.trouble = trouble{} // it was another's
	}
}

// sourceNames returns where the blob comes from, for people.
func (d *data) sourceNames() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, src := range d.sources {
		names = append(names, src.client.Name()+"://"+src.image.Ref.String())
	}
	return names
}

func (s source) same(o source) bool {
	return s.client == o.client && s.image.Ref == o.image.Ref && s.image.Version == o.image.Version
}

// has reports whether the bytes [off, end) can be read from the file now.
// Without a lock: it may miss what is just coming in.
func (d *data) has(off, end int64) bool {
	return d.phase.Load() == whole || d.have.All(chunks.Of(off), chunks.Count(end))
}

// state tells how much is here.
func (d *data) state() State {
	switch {
	case d.phase.Load() == whole:
		return Cached
	case d.have.Len() > 0:
		return Partial
	}
	return Remote
}

// present returns how many bytes are here.
func (d *data) present() int64 {
	if d.phase.Load() == whole {
		return d.size
	}
	return d.have.Bytes(d.size)
}

// complete reports whether all chunks are here, verified or not.
func (d *data) complete() bool {
	n := chunks.Count(d.size)
	return d.have.FirstMissing(0, n) == n
}

// kickKeeper makes the keeper look again. It does not block.
func (d *data) kickKeeper() {
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// kill ends the blob with err for all who have it open, and reports whether it
// was still partial. What waits for settled is told by the caller.
func (d *data) kill(err error) bool {
	d.mu.Lock()
	if d.failure == nil {
		d.failure = err
	}
	was := d.phase.Swap(dead)
	d.mu.Unlock()
	d.cancel()
	return was == partial
}

// deadErr is why the blob is dead, nil if it is not.
func (d *data) deadErr() error {
	if d.phase.Load() != dead {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failure
}

// leave gives up one use; the last one closes the files.
func (d *data) leave() {
	d.mu.Lock()
	d.users--
	last := d.users == 0
	d.mu.Unlock()
	if !last {
		return
	}
	d.cancel()
	d.disk.Lock()
	defer d.disk.Unlock()
	d.closeWriter()
	d.file.Load().Close()
	for _, f := range d.retired {
		f.Close()
	}
}

// closeWriter is called with disk held. A file that is open for writing cannot
// be executed (ETXTBSY), so it does not stay open longer than needed.
func (d *data) closeWriter() {
	if d.written != nil {
		d.written.Close()
		d.written = nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recent.Close()
	d.recent = nil
}

// trouble is the last failure that a reader was told of. Until it is over, whoever
// begins to ask for what is missing gets it at once: the service is not asked again
// for each of a thousand reads. What may pass is not told to those who waited already:
// they have a time of their own, see reader.
type trouble struct {
	err   error
	at    time.Time
	until time.Time
	row   int // failures in a row
}

const (
	troubleMin = time.Second
	troubleMax = 30 * time.Second
)

// meet notes another failure.
func (t *trouble) meet(err error) {
	pause := min(troubleMin<<min(t.row, 10), troubleMax)
	now := time.Now()
	*t = trouble{err: err, at: now, until: now.Add(pause), row: t.row + 1}
}

// now returns the failure if it still holds for who began to wait then.
func (t *trouble) now(began time.Time) error {
	if t.err == nil || !time.Now().Before(t.until) || began.Before(t.at) && mayPass(t.err) {
		return nil
	}
	return t.err
}

// A reader is somebody who waits for bytes. He gets an error that may pass only when
// nothing has come for as long as the remote's timeout allows: until then a registry
// that is away only makes him wait.
type reader struct {
	began time.Time
	moved time.Time // when what he waits for came further
	seen  int64     // how far that was, where it is all of the blob
}

func newReader() *reader {
	now := time.Now()
	return &reader{began: now, moved: now}
}

// note notes how many bytes came in so far.
func (r *reader) note(received int64) {
	if received-r.seen >= backends.LeastProgress {
		r.seen, r.moved = received, time.Now()
	}
}

// patience is how long a reader waits without any progress. The client gives up a
// little earlier, and knows the reason.
func (d *data) patience() time.Duration {
	return cmp.Or(d.item.cache.opts.Patience, d.source().client.Timeout()+5*time.Second)
}

// ends returns err if it is the end of r's wait. Call with mu held.
func (d *data) ends(r *reader, err error) error {
	final := !mayPass(err) || errors.Is(err, errDrips) || backends.RetryAfter(err) > 0
	if !final && time.Since(r.moved) < d.sources[0].client.Timeout() {
		return nil
	}
	if _, short := backends.Shortage(err); !short && d.trouble.now(time.Now()) == nil { // else another reader has noted it
		d.trouble.meet(err)
	}
	return err
}

func errNoProgress(patience time.Duration) error {
	return fmt.Errorf("%w: nothing came in for %v", context.DeadlineExceeded, patience)
}
