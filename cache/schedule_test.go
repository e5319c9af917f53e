// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
)

// A distant is a backend in whose world only distance takes time: requests and
// connections cost round trips, bodies what the rate of a connection makes of
// them. In a bubble of testing/synctest that shows how well the scheduler does,
// whatever else the machine does.
type distant struct {
	rtt  time.Duration
	rate int64 // bytes a second of each connection

	stall  func(off int64) bool // requests whose bodies stop after the first bytes
	refuse func() error         // what a request gets for an answer; nil for a body

	mu       sync.Mutex // guards the fields below
	idle     int        // connections
	made     int        // connections
	requests int
	open     int
	maxOpen  int
	sent     int64
	refused  int
	maxAfter int // open at once since the first refusal of all was over
}

func (b *distant) Stat(context.Context, backends.Ref) (backends.Image, error) {
	return backends.Image{}, errors.ErrUnsupported
}

func (b *distant) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	b.mu.Lock()
	b.requests++
	b.open++
	b.maxOpen = max(b.maxOpen, b.open)
	wait := b.rtt
	if b.idle > 0 {
		b.idle--
	} else {
		b.made++
		wait += b.rtt
	}
	if b.refused > 0 {
		b.maxAfter = max(b.maxAfter, b.open)
	}
	var refusal error
	if b.refuse != nil {
		refusal = b.refuse()
	}
	if refusal != nil {
		b.refused, b.maxAfter = b.refused+1, 0
		b.open--
		b.idle++
	}
	stall := b.stall != nil && b.stall(off)
	b.mu.Unlock()
	pause(ctx, wait)
	if refusal != nil {
		return nil, refusal
	}
	body := &distantBody{from: b, ctx: ctx, off: off, end: min(off+n, img.Size), due: time.Now()}
	if stall {
		body.stop = off + 100<<10
	}
	return body, ctx.Err()
}

type distantBody struct {
	from     *distant
	ctx      context.Context //nolint:containedctx // the request's own, as in any body
	off, end int64
	stop     int64 // 0 if it does not
	due      time.Time
}

func (b *distantBody) Read(p []byte) (int, error) {
	if b.off == b.end {
		return 0, io.EOF
	}
	if b.stop > 0 && b.off >= b.stop {
		<-b.ctx.Done()
	}
	n := min(int64(len(p)), b.end-b.off, 64<<10)
	b.due = b.due.Add(time.Duration(n * int64(time.Second) / b.from.rate))
	if pause(b.ctx, time.Until(b.due)); b.ctx.Err() != nil {
		return 0, b.ctx.Err()
	}
	copy(p[:n], numbered(b.off, n))
	b.off += n
	b.from.mu.Lock()
	defer b.from.mu.Unlock()
	b.from.sent += n
	return int(n), nil
}

func (b *distantBody) Close() error {
	b.from.mu.Lock()
	defer b.from.mu.Unlock()
	b.from.open--
	if b.off == b.end { // else there is more to come on it
		b.from.idle++
	}
	return nil
}

// strange is of a length that divides nothing: every place of what repeats it
// looks different from those around it.
var strange = randomBytes(9, mib-3)

// numbered returns at most a MiB from off of a content in which no two places
// that could be mistaken for one another are alike.
func numbered(off, n int64) []byte {
	at := off % int64(len(strange))
	b := make([]byte, 0, n)
	b = append(b, strange[at:min(at+n, int64(len(strange)))]...)
	return append(b, strange[:n-int64(len(b))]...)
}

// distantImage describes an image of numbered bytes.
func distantImage(size int64) backends.Image {
	return backends.Image{Ref: backends.Ref{Collection: "c", Name: "a", Tag: "1"}, Size: size, Version: "1"}
}

// readInOrder reads a blob from its start as the kernel does: half a MiB first,
// then a MiB at a time.
func readInOrder(t *testing.T, blob *Blob) {
	t.Helper()
	buf := make([]byte, mib)
	for off, step := int64(0), int64(mib/2); off < blob.Size(); step = mib {
		n, err := blob.ReadAt(buf[:min(step, blob.Size()-off)], off)
		if at := off + int64(n); err != nil || n < 8 || string(buf[n-8:n]) != string(numbered(at-8, 8)) {
			t.Fatalf("ReadAt(%d) = %d, %v, or other bytes", off, n, err)
		}
		off += int64(n)
	}
}

// A whole image is read as fast as 16 parallel requests of 8 MiB could, on new
// connections all. The clock is virtual; which of two goroutines that wake at one moment
// runs first is not (the race detector shuffles them), and decides how the image is
// divided: in one run of 24 that costs a round trip. So the median of three counts.
func TestSchedule_wholeImage(t *testing.T) {
	t.Parallel()
	const size, streams, piece = 512 * mib, 16, 8 * mib
	for _, rtt := range []time.Duration{20 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(rtt.String(), func(t *testing.T) {
			t.Parallel()
			best := rtt + size/piece/streams*(rtt+piece*time.Second/50e6)
			var all []time.Duration
			for range 3 {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					far := &distant{rtt: rtt, rate: 50e6}
					client := backends.NewClient("lab", far, backends.ClientOptions{})
					blob := openBlob(t, openCache(t, dir, Options{}), client, distantImage(size))
					start := time.Now()
					readInOrder(t, blob)
					took := time.Since(start)
					all = append(all, took)
					t.Logf("%v, parallel requests %v: %.2f; %d requests on %d connections, %d at once, %d bytes", took, best, best.Seconds()/took.Seconds(), far.requests, far.made, far.maxOpen, far.sent)
					if far.sent > size {
						t.Errorf("%d bytes were sent of %d", far.sent, size)
					}
				})
			}
			slices.Sort(all)
			if all[1] > best*10/9 {
				t.Errorf("took %v, parallel requests %v", all, best)
			}
		})
	}
}

// Who reads the first MiB and closes has only looked: what was asked for by then
// comes in, and no more.
func TestSchedule_lookedOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		far := &distant{rtt: 50 * time.Millisecond, rate: 50e6}
		c := openCache(t, dir, Options{})
		b := openBlob(t, c, backends.NewClient("lab", far, backends.ClientOptions{}), distantImage(1<<30))
		if _, err := b.ReadAt(make([]byte, 2*mib), 0); err != nil {
			t.Fatal(err)
		}
		b.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		if most := int64(maxTransfers * 4 * mib); far.sent > most {
			t.Errorf("%d bytes were sent to somebody who read 2 MiB, want at most %d", far.sent, most)
		}
	})
}

// A demanded read takes no longer while the rest of the image comes in.
func TestSchedule_demandUnderFill(t *testing.T) {
	t.Parallel()
	const rtt = 50 * time.Millisecond
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		far := &distant{rtt: rtt, rate: 10e6}
		c := openCache(t, dir, Options{})
		b := openBlob(t, c, backends.NewClient("lab", far, backends.ClientOptions{}), distantImage(256*mib))
		filled := make(chan error, 1)
		go func() { filled <- b.Wait(t.Context(), nil) }()
		buf := make([]byte, 4096)
		rnd := rand.New(rand.NewPCG(1, 2))
		var slowest time.Duration
		for range 40 {
			start := time.Now()
			if _, err := b.ReadAt(buf, rnd.Int64N(b.Size()-4096)); err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, time.Since(start))
			time.Sleep(10 * time.Millisecond)
		}
		// A connection, a request, and the chunk as far as the byte wanted.
		idle := 2*rtt + mib*time.Second/10e6
		if slowest > 2*idle {
			t.Errorf("the slowest of 40 reads took %v, want at most %v", slowest, 2*idle)
		}
		if err := <-filled; err != nil {
			t.Fatal(err)
		}
		if far.sent > 256*mib*102/100 {
			t.Errorf("%d bytes were sent of %d", far.sent, 256*mib)
		}
	})
}

// Readers that are interrupted by the hundred take nothing from the others, and
// cost nothing.
func TestSchedule_interrupted(t *testing.T) {
	t.Parallel()
	const size = 32 * mib
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		far := &distant{rtt: 50 * time.Millisecond, rate: 20e6}
		c := openCache(t, dir, Options{})
		b := openBlob(t, c, backends.NewClient("lab", far, backends.ClientOptions{}), distantImage(size))
		var wg sync.WaitGroup
		interrupted := atomic.Int64{}
		for i := range 300 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Millisecond)
				defer cancel()
				_, err := b.ReadAtContext(ctx, make([]byte, 4096), int64(i)*size/300)
				if errors.Is(err, context.DeadlineExceeded) {
					interrupted.Add(1)
				} else if err != nil {
					t.Error(err)
				}
			})
		}
		readInOrder(t, b)
		wg.Wait()
		if interrupted.Load() < 50 {
			t.Errorf("%d readers were interrupted: the test shows little", interrupted.Load())
		}
		if far.sent > size*102/100 {
			t.Errorf("%d bytes were sent of %d", far.sent, size)
		}
	})
}

// A service that asks to be left alone is, by whatever can wait.
func TestSchedule_throttled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		far := &distant{rtt: 50 * time.Millisecond, rate: 50e6}
		start := time.Now()
		far.refuse = func() error {
			if since := time.Since(start); since > 300*time.Millisecond && since < 20*time.Second {
				return &backends.DelayError{Err: backends.ErrRateLimited, After: 20*time.Second - since}
			}
			return nil
		}
		c := openCache(t, dir, Options{})
		b := openBlob(t, c, backends.NewClient("lab", far, backends.ClientOptions{}), distantImage(512*mib))
		if err := b.Wait(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if far.refused > maxTransfers {
			t.Errorf("%d requests were refused, want at most those of one moment", far.refused)
		}
		if far.maxAfter > sched.LimitMax/2+sched.Reserved {
			t.Errorf("%d requests at once after the complaint, want %d", far.maxAfter, sched.LimitMax/2+sched.Reserved)
		}
	})
}

// maxTransfers is how many bodies a client has under way at most.
const maxTransfers = sched.DefaultSlots * 3 / 4
