// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A distant is a backend in whose world only distance takes time: requests and
// connections cost round trips, bodies what the rate of a connection makes of
// them. In a bubble of testing/synctest that shows how well the scheduler does,
// whatever else the machine does.
type distant struct {
	rtt  time.Duration
	rate int64 // bytes a second of each connection

	stall func(off int64) bool // requests whose bodies stop after the first bytes

	mu       sync.Mutex // guards the fields below
	idle     int        // connections
	made     int        // connections
	requests int
	open     int
	maxOpen  int
	sent     int64
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
	stall := b.stall != nil && b.stall(off)
	b.mu.Unlock()
	pause(ctx, wait)
	body := &distantBody{from: b, ctx: ctx, off: off, end: min(off+n, img.Size), due: time.Now()}
	if stall {
		body.stop = off + 100<<10
	}
	return body, ctx.Err()
}

type distantBody struct {
	from     *distant
	ctx      context.Context
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
// connections all.
func TestSchedule_wholeImage(t *testing.T) {
	t.Parallel()
	const size, streams, piece = 512 * mib, 16, 8 * mib
	for _, rtt := range []time.Duration{20 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(rtt.String(), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				far := &distant{rtt: rtt, rate: 50e6}
				client := backends.NewClient("lab", far, backends.ClientOptions{})
				c := openCache(t, dir, Options{})
				blob := openBlob(t, c, client, distantImage(size))
				start := time.Now()
				readInOrder(t, blob)
				took := time.Since(start)
				best := rtt + size/piece/streams*(rtt+piece*time.Second/50e6)
				t.Logf("%v, parallel requests %v: %.2f; %d requests on %d connections, %d at once, %d bytes", took, best, best.Seconds()/took.Seconds(), far.requests, far.made, far.maxOpen, far.sent)
				if took > best*10/9 {
					t.Errorf("took %v, parallel requests %v", took, best)
				}
				if far.sent > size {
					t.Errorf("%d bytes were sent of %d", far.sent, size)
				}
			})
		})
	}
}
