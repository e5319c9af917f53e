// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/chunks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A service is a backend in whose world only distance takes time.
type service struct {
	content []byte
	rtt     time.Duration
	rate    int64           // bytes a second of each body
	hang    <-chan struct{} // hold the bodies of which hangIf says so until it is closed
	hangIf  func(off, n int64) bool
	open    atomic.Int64
	sent    atomic.Int64
}

func (s *service) Stat(context.Context, backends.Ref) (backends.Image, error) {
	return backends.Image{}, errors.ErrUnsupported
}

func (s *service) Open(ctx context.Context, _ backends.Image, off, n int64) (io.ReadCloser, error) {
	s.open.Add(1)
	wait(ctx, s.rtt)
	body := &serviceBody{from: s, ctx: ctx, rest: s.content[off:min(off+n, int64(len(s.content)))]}
	if s.hangIf != nil && s.hangIf(off, n) {
		body.hang = s.hang
	}
	return body, ctx.Err()
}

type serviceBody struct {
	from *service
	ctx  context.Context //nolint:containedctx // the request's own, as in any body
	rest []byte
	hang <-chan struct{}
}

func (b *serviceBody) Read(p []byte) (int, error) {
	if b.hang != nil {
		select {
		case <-b.hang:
		case <-b.ctx.Done():
		}
	}
	n := copy(p[:min(len(p), 64<<10)], b.rest)
	if n == 0 {
		return 0, io.EOF
	}
	if wait(b.ctx, time.Duration(int64(n)*int64(time.Second)/b.from.rate)); b.ctx.Err() != nil {
		return 0, b.ctx.Err()
	}
	b.rest = b.rest[n:]
	b.from.sent.Add(int64(n))
	return n, nil
}

func (b *serviceBody) Close() error {
	b.from.open.Add(-1)
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// A place is a service as a Source.
type place struct {
	client *backends.Client
	image  backends.Image
}

func (p *place) Open(ctx context.Context, opts backends.TransferOptions) Transfer {
	return p.client.Transfer(ctx, p.image, opts)
}
func (p *place) Scheduler() *sched.Scheduler { return p.client.Scheduler() }
func (p *place) Timeout() time.Duration      { return p.client.Timeout() }
func (p *place) Same(o Source) bool          { return p == o }

// A file is a sink.
type file struct {
	*os.File
	have chunks.Set
}

func (f *file) Reserve(int64) error { return nil }
func (f *file) Complete(c int64)    { f.have.Add(c) }
func (f *file) Changed()            {}

// download returns a download from s into a file, which is closed with the test.
func download(t *testing.T, s *service, opts Options) (*Download, *file) {
	t.Helper()
	return downloadFrom(t, s, int64(len(s.content)), opts)
}

func downloadFrom(t *testing.T, b backends.Backend, size int64, opts Options) (*Download, *file) {
	t.Helper()
	return downloadOver(t, backends.NewClient("lab", b, backends.ClientOptions{}), size, opts)
}

func downloadOver(t *testing.T, client *backends.Client, size int64, opts Options) (*Download, *file) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		f.Close()
	})
	sink := &file{File: f, have: chunks.NewSet(chunks.Count(size))}
	opts.Size, opts.Have, opts.Sink = size, sink.have, sink
	opts.InUse = func() bool { return true }
	opts.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	opts.Go = func(fn func()) bool { wg.Go(fn); return true }
	d := New(ctx, opts)
	d.Offer(&place{client: client,
		image: backends.Image{Ref: backends.Ref{Collection: "c", Name: "a", Tag: "1"}, Size: size}})
	return d, sink
}

func content(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func mustHave(t *testing.T, d *Download, f *file, content []byte, off, n int64) {
	t.Helper()
	if err := d.Await(t.Context(), off, off+n, new(Window)); err != nil {
		t.Fatalf("Await(%d, %d): %v", off, n, err)
	}
	got := make([]byte, n)
	if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, content[off:off+n]) {
		t.Fatalf("at %d: %v, or other bytes", off, err)
	}
}

// A reader does not wait for a long background request to reach what it wants.
func TestDownload_overtakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		s := &service{content: content(64 * mib), rate: 20e6, hang: hang, hangIf: func(_, n int64) bool { return n > mib }}
		d, f := download(t, s, Options{Delay: time.Hour})
		mustHave(t, d, f, s.content, 8*mib-9, 9)
		d.StartBackground()
		synctest.Wait()
		if n := s.open.Load(); n < 4 {
			t.Fatalf("%d background requests", n)
		}
		start := time.Now()
		mustHave(t, d, f, s.content, 15*mib+5, 100)
		if took := time.Since(start); took > time.Second {
			t.Errorf("a read of what a request that hangs is to bring took %v", took)
		}
		close(hang)
		if err := d.All(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustHave(t, d, f, s.content, 0, 64*mib)
		if got := s.sent.Load(); got > 65*mib {
			t.Errorf("%d bytes fetched of 64 MiB", got)
		}
	})
}

// However many readers want a range, each of its bytes is sent once.
func TestDownload_once(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &service{content: content(24*mib + 17), rtt: 20 * time.Millisecond, rate: 50e6}
		d, f := download(t, s, Options{Delay: 10 * time.Millisecond})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), 1))
				for range 20 {
					mustHave(t, d, f, s.content, rnd.Int64N(24*mib), 17)
				}
			})
		}
		wg.Wait()
		if err := d.All(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !d.Complete() || s.sent.Load() > int64(len(s.content))*102/100 {
			t.Errorf("complete: %v, %d bytes sent of %d", d.Complete(), s.sent.Load(), len(s.content))
		}
	})
}

// Readers are told how a download ended, and nothing is fetched any more.
func TestDownload_end(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		defer close(hang)
		s := &service{content: content(4 * mib), rate: 20e6, hang: hang, hangIf: func(int64, int64) bool { return true }}
		d, _ := download(t, s, Options{NoBackground: true})
		waited := make(chan error, 2)
		go func() { waited <- d.Await(t.Context(), 0, 10, new(Window)) }()
		synctest.Wait()
		d.End(backends.ErrCorrupt)
		if err := d.Await(t.Context(), 2*mib, 2*mib+1, new(Window)); !errors.Is(err, backends.ErrCorrupt) {
			t.Errorf("a read after the end = %v, want ErrCorrupt", err)
		}
		d.End(nil) // too late
		go func() { waited <- d.AwaitByte(t.Context(), 3*mib) }()
		if err := <-waited; !errors.Is(err, backends.ErrCorrupt) {
			t.Errorf("another one = %v, want ErrCorrupt", err)
		}
	})
}
