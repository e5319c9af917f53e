// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

func TestBlob_oracle(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		size   int
		faults faults
		opts   Options
	}{
		"several chunks": {size: 9*mib + 12345},
		"exact chunks":   {size: 4 * mib},
		"tiny":           {size: 1},
		"only demand":    {size: 5*mib + 1, opts: Options{NoBackground: true}},
		"at once":        {size: 9*mib + 5, opts: Options{FillDelay: time.Nanosecond}},
		"no ranges":      {size: 6*mib + 77, faults: faults{noRanges: true}},
		"cut bodies":     {size: 5*mib + 77, faults: faults{cut: 700_000}},
		"small limit":    {size: 5*mib + 77, opts: Options{MaxBytes: mib}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRegistry(t)
			r.set(test.faults)
			content := randomBytes(1, test.size)
			img := r.image("a", content)
			c := openCache(t, t.TempDir(), test.opts)
			b := openBlob(t, c, r.client(t), img)
			var wg sync.WaitGroup
			for reader := range 4 {
				wg.Go(func() { readAtRandom(t, b, content, uint64(reader)) })
			}
			wg.Wait()
			if err := b.Wait(t.Context(), nil); err != nil {
				t.Fatalf("Wait: %v", err)
			}
			readAtRandom(t, b, content, 99)
			if got := b.State(); got != Cached {
				t.Errorf("State = %s, want %s", got, Cached)
			}
			if f, ok := b.File(); !ok || !sameContent(t, f, content) {
				t.Errorf("File: %v, or another content", ok)
			}
		})
	}
}

func sameContent(t *testing.T, r io.ReaderAt, want []byte) bool {
	t.Helper()
	got, err := io.ReadAll(io.NewSectionReader(r, 0, int64(len(want))+1))
	if err != nil {
		t.Errorf("reading it all: %v", err)
	}
	return bytes.Equal(got, want)
}

// readAtRandom compares reads of b with those of a bytes.Reader.
func readAtRandom(t *testing.T, b io.ReaderAt, content []byte, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	oracle := bytes.NewReader(content)
	const most = 300 << 10
	gotBuf, wantBuf := make([]byte, most), make([]byte, most)
	for range 60 {
		off := rnd.Int64N(int64(len(content)) + 10)
		n := rnd.IntN(most)
		got, want := gotBuf[:n], wantBuf[:n]
		n, err := b.ReadAt(got, off)
		wantN, wantErr := oracle.ReadAt(want, off)
		if n != wantN || !errors.Is(err, wantErr) || !bytes.Equal(got[:n], want[:n]) {
			t.Errorf("ReadAt(%d bytes, %d) = %d, %v; want %d, %v (equal: %v)",
				len(got), off, n, err, wantN, wantErr, bytes.Equal(got[:n], want[:wantN]))
			return
		}
	}
}

func TestBlob_badArguments(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	c := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, c, r.client(t), r.image("a", []byte("hello")))
	if _, err := b.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("ReadAt(-1) gave no error")
	}
	if n, err := b.ReadAt(make([]byte, 9), 5); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt at the end = %d, %v; want EOF", n, err)
	}
	b.Close()
	if _, err := b.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("ReadAt after Close = %v, want ErrClosed", err)
	}
}

func TestBlob_empty(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	c := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, c, r.client(t), r.image("a", nil))
	if err := b.Wait(t.Context(), nil); err != nil {
		t.Fatalf("Wait: %v", err)
	}
	if n, err := b.ReadAt(make([]byte, 1), 0); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt = %d, %v; want EOF", n, err)
	}
	if got := r.requests.Load(); got != 0 {
		t.Errorf("%d requests for no bytes", got)
	}
}

// Many readers of one cold image cost one download, whatever they read.
func TestBlob_fetchedOnce(t *testing.T) {
	t.Parallel()
	const size, readers = 48*mib + 4321, 64
	r := newRegistry(t)
	content := randomBytes(1, size)
	img := r.image("a", content)
	twin := r.image("b", content) // another name of the same bytes
	client := r.client(t)
	c := openCache(t, t.TempDir(), Options{FillDelay: 10 * time.Millisecond})
	// A service that is slow at times, all the time: what a busy machine holds up is not
	// asked for again.
	r.set(faults{hang: make(chan struct{}), hangIf: func(int64, int64) bool {
		client.Scheduler().Latency.Note(time.Minute)
		return false
	}})
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			mine := img
			if i%2 == 1 {
				mine = twin
			}
			b, err := c.Blob(t.Context(), client, mine)
			if err != nil {
				t.Error(err)
				return
			}
			defer b.Close()
			if i%3 == 0 {
				compareAll(t, b, content)
				return
			}
			readAtRandom(t, b, content, uint64(i))
		})
	}
	wg.Wait()
	b := openBlob(t, c, client, img)
	if err := b.Wait(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, limit := r.sent.Load(), int64(size*102/100); got > limit {
		t.Errorf("%d readers fetched %d bytes of an image of %d: at most %d wanted", readers, got, size, limit)
	}
	t.Logf("%d bytes sent for %d, %d requests, at most %d at once", r.sent.Load(), size, r.requests.Load(), r.maxOpen.Load())
}

// compareAll reads all of b in pieces and compares it with content.
func compareAll(t *testing.T, b *Blob, content []byte) {
	t.Helper()
	if b.Size() != int64(len(content)) {
		t.Errorf("size %d, want %d", b.Size(), len(content))
		return
	}
	piece := make([]byte, 128<<10)
	for off := 0; off < len(content); off += len(piece) {
		want := content[off:min(off+len(piece), len(content))]
		if n, err := b.ReadAt(piece[:len(want)], int64(off)); err != nil || !bytes.Equal(piece[:n], want) {
			t.Errorf("ReadAt(%d) = %d, %v (or other bytes)", off, n, err)
			return
		}
	}
}

// A look into the middle of a large image costs what is around it.
func TestBlob_smallRead(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 40*mib)
	c := openCache(t, t.TempDir(), Options{FillDelay: time.Hour})
	b := openBlob(t, c, r.client(t), r.image("a", content))
	got := make([]byte, 4096)
	off := int64(33*mib - 100)
	if _, err := b.ReadAt(got, off); err != nil || !bytes.Equal(got, content[off:off+4096]) {
		t.Fatalf("ReadAt: %v, or other bytes", err)
	}
	if sent := r.sent.Load(); sent > 4096+2*mib {
		t.Errorf("a read of 4 KiB fetched %d bytes", sent)
		r.ranges.Range(func(k, _ any) bool { t.Log(k); return true })
	}
	if _, err := b.ReadAt(make([]byte, 1), 34*mib-1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest of its chunks", func() bool { return b.Has(off, 4096) })
	if b.Has(0, 1) || b.State() != Partial {
		t.Errorf("the first byte is here: %v; state %s", b.Has(0, 1), b.State())
	}
}

// A reader that gives up takes nothing from the others.
func TestBlob_cancelled(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	gate := make(chan struct{})
	r.set(faults{hang: gate})
	content := randomBytes(1, 2*mib)
	c := openCache(t, t.TempDir(), Options{})
	b := openBlob(t, c, r.client(t), r.image("a", content))
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := b.ReadAtContext(ctx, make([]byte, 10), 0)
		first <- err
	}()
	second := make(chan error)
	go func() {
		_, err := b.ReadAt(make([]byte, 10), 5)
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled read = %v", err)
	}
	close(gate)
	if err := <-second; err != nil {
		t.Errorf("the other read = %v", err)
	}
}

func TestBlob_impatient(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	gate := make(chan struct{})
	defer close(gate)
	r.set(faults{hang: gate})
	c := openCache(t, t.TempDir(), Options{Patience: 50 * time.Millisecond})
	b := openBlob(t, c, r.client(t), r.image("a", randomBytes(1, mib)))
	if _, err := b.ReadAt(make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("read from a silent service = %v, want DeadlineExceeded", err)
	}
}

// Failures are told at once for a while, not asked for again by each read.
func TestBlob_failureIsRemembered(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	c := openCache(t, t.TempDir(), Options{})
	img := r.image("a", randomBytes(1, 3*mib))
	b := openBlob(t, c, r.client(t), img)
	r.set(faults{status: 403})
	for range 20 {
		_, err := b.ReadAt(make([]byte, 10), 2*mib)
		if !errors.Is(err, backends.ErrUnauthorized) && err == nil {
			t.Fatalf("read = %v", err)
		}
	}
	if n := r.requests.Load(); n > 3 {
		t.Errorf("%d requests for 20 reads that were refused", n)
	}
	if info := c.Info(b.Key()); info.Err == nil {
		t.Error("Info does not tell the failure")
	}
}

// A service that ignored a range for one image, and breaks off another in its
// middle, is asked for the rest: the whole would break off there each time.
func TestBlob_streamBrokenOff(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client := r.client(t)
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	r.set(faults{noRanges: true})
	first := randomBytes(1, 2*mib)
	mustRead(t, openBlob(t, c, client, r.image("a", first)), first, mib, 10)
	r.set(faults{cut: 700_000})
	content := randomBytes(2, 8*mib)
	mustRead(t, openBlob(t, c, client, r.image("b", content)), content, 0, 8*mib)
}

// A service that ignores ranges and breaks off is asked for the whole again.
func TestBlob_streamTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 4*mib)
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, r.client(t), r.image("a", content))
	var cut atomic.Int64
	r.set(faults{noRanges: true, mangle: func(_ string, off int64, _ []byte) {
		if off >= mib && off < mib+64<<10 && cut.Add(1) < 3 {
			panic(http.ErrAbortHandler)
		}
	}})
	mustRead(t, b, content, 0, 4*mib)
}

// A service without ranges is asked for the whole, once.
func TestBlob_streamed(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	content := randomBytes(1, 8*mib)
	r.set(faults{noRanges: true})
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	b := openBlob(t, c, r.client(t), r.image("a", content))
	mustRead(t, b, content, 5*mib, 10)
	mustRead(t, b, content, 0, 8*mib)
	if n := r.requests.Load(); n != 2 { // one that asked for a range, one for all
		t.Errorf("%d requests, want 2", n)
	}
	other := randomBytes(2, 2*mib)
	b2 := openBlob(t, c, r.client(t), r.image("b", other))
	mustRead(t, b2, other, mib, 10)
}
