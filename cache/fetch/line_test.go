// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/chunks"
)

const (
	packet      = 16 << 10
	socketPlace = 128 << 10 // what is sent of a body that nobody reads just now
)

// A line is what all bodies of a service share: its connections take turns.
type line struct {
	service
	all int64 // bytes a second

	mu   sync.Mutex // guards the field below
	free time.Time
}

func (l *line) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	body, err := l.service.Open(ctx, img, off, n)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	b := &lineBody{ReadCloser: body, ctx: ctx, cancel: cancel, in: make(chan []byte, socketPlace/packet)}
	b.sender.Go(func() { l.send(ctx, l.content[off:min(off+n, int64(len(l.content)))], b.in) })
	return b, nil
}

func (l *line) send(ctx context.Context, rest []byte, to chan<- []byte) {
	defer close(to)
	for len(rest) > 0 {
		n := min(packet, len(rest))
		l.mu.Lock()
		if now := time.Now(); l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(int64(n) * int64(time.Second) / l.all))
		at := l.free
		l.mu.Unlock()
		wait(ctx, time.Until(at))
		select {
		case to <- rest[:n]:
			l.sent.Add(int64(n))
		case <-ctx.Done():
			return
		}
		rest = rest[n:]
	}
}

type lineBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // the request's own, as in any body
	cancel context.CancelFunc
	sender sync.WaitGroup
	in     chan []byte
	first  []byte
}

func (b *lineBody) Read(p []byte) (int, error) {
	if len(b.first) == 0 {
		select {
		case b.first = <-b.in:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
		if len(b.first) == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, b.first)
	b.first = b.first[n:]
	return n, nil
}

func (b *lineBody) Close() error {
	b.cancel()
	b.sender.Wait()
	return b.ReadCloser.Close()
}

// places are where somebody reads, in shares of the image.
var places = []float64{0.97, 0.5, 0.75, 0.3, 0.9, 0.6, 0.2, 0.85}

// lineWaits reads 64 KiB at each of the places, and returns the longest wait.
func lineWaits(t *testing.T, l *line, d *Download, f *file) (worst time.Duration) {
	t.Helper()
	for _, share := range places {
		start := time.Now()
		mustHave(t, d, f, l.content, int64(share*float64(len(l.content)))&^4095, 64<<10)
		took := time.Since(start)
		t.Logf("at %.2f: %v", share, took)
		worst = max(worst, took)
	}
	return worst
}

// What a reader waits for does not come behind the rest of the image, however slow the
// line is that both share.
func TestDownload_sharedLine(t *testing.T) {
	t.Parallel()
	image := content(64 * mib)
	tests := map[string]struct {
		rtt  time.Duration
		rate int64
	}{
		"a slow line": {time.Millisecond, 3e6},
		"far away":    {20 * time.Millisecond, 10e6},
		"fast":        {20 * time.Millisecond, 100e6},
	}
	for name, test := range tests {
		in := func(t *testing.T, name string, opts Options, read func(t *testing.T, l *line, d *Download, f *file)) {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &line{service: service{content: image, rtt: test.rtt, rate: 1e12}, all: test.rate}
					opts.Delay = 500 * time.Millisecond
					d, f := downloadFrom(t, l, int64(len(image)), opts)
					read(t, l, d, f)
				})
			})
		}
		t.Run(name, func(t *testing.T) {
			var idle time.Duration
			in(t, "idle", Options{NoBackground: true}, func(t *testing.T, l *line, d *Download, f *file) {
				for _, share := range places {
					start := time.Now()
					mustHave(t, d, f, l.content, int64(share*float64(len(l.content)))&^4095, 64<<10)
					idle = max(idle, time.Since(start))
					time.Sleep(time.Second)
				}
			})
			most := 2*idle + 2*chunks.Size*time.Second/time.Duration(test.rate) + 2*overtakeTime
			look := func(after time.Duration) func(t *testing.T, l *line, d *Download, f *file) {
				return func(t *testing.T, l *line, d *Download, f *file) {
					mustHave(t, d, f, l.content, 0, 64<<10)
					time.Sleep(after)
					if worst := lineWaits(t, l, d, f); worst > most {
						t.Errorf("a read took %v while the rest came in, want at most %v; idle %v", worst, most, idle)
					}
				}
			}
			in(t, "soon", Options{}, look(0))
			in(t, "later", Options{}, look(600*time.Millisecond))
			in(t, "late", Options{}, look(2*time.Second))
			in(t, "wanted at once", Options{}, func(t *testing.T, l *line, d *Download, f *file) {
				go func() { _ = d.Await(t.Context(), 0, mib, new(Window)) }()
				time.Sleep(2 * time.Second)
				if worst := lineWaits(t, l, d, f); worst > most+fillTime {
					t.Errorf("a read took %v while the rest came in, want at most %v; idle %v", worst, most+fillTime, idle)
				}
			})
			in(t, "in order first", Options{}, func(t *testing.T, l *line, d *Download, f *file) {
				start, w := time.Now(), new(Window)
				const n, readAhead = 6 * mib, 128 << 10
				for off := int64(0); off < n; off += readAhead {
					if err := d.Await(t.Context(), off, off+readAhead, w); err != nil {
						t.Fatal(err)
					}
				}
				took := time.Since(start)
				t.Logf("in order: %v", took)
				if most := 2*(n*time.Second/time.Duration(test.rate)+3*test.rtt) + fillTime; took > most {
					t.Errorf("reading %d bytes in order took %v, want at most %v", n, took, most)
				}
				// How many requests fill the line is yet to be found out.
				if worst := lineWaits(t, l, d, f); worst > most+fillTime {
					t.Errorf("a read took %v while the rest came in, want at most %v; idle %v", worst, most+fillTime, idle)
				}
			})
		})
	}
}

// Many images that are read at the same time have equal shares of a line, and all of it.
func TestDownload_fairShares(t *testing.T) {
	t.Parallel()
	const images, rate = 20, 200e6
	image := content(24 * mib)
	synctest.Test(t, func(t *testing.T) {
		l := &line{service: service{content: image, rtt: 20 * time.Millisecond, rate: 1e12}, all: rate}
		client := backends.NewClient("lab", l, backends.ClientOptions{})
		ctx, whole := context.WithCancel(t.Context())
		defer whole()
		var all sync.WaitGroup
		var downloads []*Download
		start := time.Now()
		for range images {
			d, _ := downloadOver(t, client, int64(len(image)), Options{Delay: time.Second})
			downloads = append(downloads, d)
			all.Go(func() {
				defer whole()
				w := new(Window)
				for off := int64(0); off < int64(len(image)); off += mib {
					if d.Await(ctx, off, off+mib, w) != nil {
						return
					}
				}
			})
		}
		all.Wait()
		used := float64(l.sent.Load()) / time.Since(start).Seconds() / rate
		var sum, squares float64
		for _, d := range downloads {
			n, _ := d.Received()
			sum += float64(n)
			squares += float64(n) * float64(n)
		}
		fair := sum * sum / squares / images // Jain's index
		t.Logf("%.2f of the line was used, with a fairness of %.2f", used, fair)
		if used < 0.9 || fair < 0.8 {
			t.Errorf("%.2f of the line was used, with a fairness of %.2f; want 0.9 and 0.8", used, fair)
		}
	})
}
