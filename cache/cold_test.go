// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A farConn is the server's end of a connection with a round-trip time and a
// rate (bytes a second; 0 is no limit).
type farConn struct {
	*net.TCPConn
	rtt  time.Duration
	rate int64

	mu  sync.Mutex // guards the field below
	due time.Time  // what is sent next has left by then
}

func (c *farConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := time.Now().Add(c.rtt); at.After(c.due) {
		c.due = at
	}
	return n, err
}

func (c *farConn) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n, err := c.TCPConn.Write(p[:min(len(p), c.pause(len(p)))])
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
	}
	return total, nil
}

func (c *farConn) ReadFrom(r io.Reader) (total int64, err error) {
	for {
		want := int64(c.pause(1 << 20))
		limit := want
		from := r
		lr, ok := r.(*io.LimitedReader)
		if ok {
			limit, from = min(limit, lr.N), lr.R
		}
		n, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: from, N: limit})
		total += n
		if ok {
			lr.N -= n
		}
		if err != nil || n < limit || ok && lr.N == 0 {
			return total, err
		}
	}
}

func (c *farConn) pause(n int) int {
	c.mu.Lock()
	if c.rate > 0 {
		n = min(n, 64<<10)
		if floor := time.Now().Add(-20 * time.Millisecond); c.due.Before(floor) {
			c.due = floor
		}
		c.due = c.due.Add(time.Duration(int64(n) * int64(time.Second) / c.rate))
	}
	due := c.due
	c.mu.Unlock()
	time.Sleep(time.Until(due))
	return n
}

type farListener struct {
	net.Listener
	rtt  time.Duration
	rate int64
}

func (l farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &farConn{TCPConn: c.(*net.TCPConn), rtt: l.rtt, rate: l.rate, due: time.Now().Add(2 * l.rtt)}, nil
}

// far serves the file at path, far away.
func far(t testing.TB, path string, rtt time.Duration, rate int64) (url string) {
	next, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		http.ServeFile(w, req, path)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(farListener{next, rtt, rate}) }()
	t.Cleanup(func() { s.Close(); <-done })
	return "http://" + next.Addr().String()
}

// BenchmarkCold reads a cold image from its start to its end; beside it, what 16
// parallel requests for 8 MiB at a time take, into a file and unverified.
func BenchmarkCold(b *testing.B) {
	const size = 512 << 20
	path := filepath.Join(b.TempDir(), "image")
	img := backends.Image{Ref: backends.Ref{Collection: "c", Name: "image", Tag: "1"}, Size: size, Digest: randomFile(b, path, size)}
	for _, rtt := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		for _, rate := range []int64{0, 50e6} {
			name := fmt.Sprintf("rtt=%v/rate=%dMB", rtt, rate/1e6)
			b.Run(name+"/parallel", func(b *testing.B) {
				b.SetBytes(size)
				for b.Loop() {
					fetchParallel(b, far(b, path, rtt, rate), size)
				}
			})
			b.Run(name+"/cache", func(b *testing.B) {
				b.SetBytes(size)
				for b.Loop() {
					readCold(b, far(b, path, rtt, rate), img)
				}
			})
		}
	}
}

// randomFile makes a file, which need not stay in memory, and returns its digest.
func randomFile(b *testing.B, path string, size int) (digest string) {
	b.Helper()
	content := randomBytes(1, size)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.Fatal(err)
	}
	return sha256Of(content)
}

func fetchParallel(b *testing.B, url string, size int64) {
	const piece, streams = 8 << 20, 16
	f, err := os.Create(filepath.Join(b.TempDir(), "copy"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	defer hc.CloseIdleConnections()
	w := &web{url: url, http: hc}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() {
			for off := next.Add(piece) - piece; off < size; off = next.Add(piece) - piece {
				body, err := w.Open(b.Context(), backends.Image{}, off, min(piece, size-off))
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.NewOffsetWriter(f, off)}, body, make([]byte, bufferSize)); err != nil {
					b.Error(err)
				}
				body.Close()
			}
		})
	}
	wg.Wait()
}

func readCold(b *testing.B, url string, img backends.Image) {
	b.StopTimer()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	defer hc.CloseIdleConnections()
	client := backends.NewClient("lab", &web{url: url, http: hc}, backends.ClientOptions{})
	c := openCache(b, b.TempDir(), Options{})
	blob := openBlob(b, c, client, img)
	b.StartTimer()
	buf := make([]byte, 512<<10)
	for off := int64(0); off < blob.Size(); {
		n, err := blob.ReadAt(buf, off)
		if off += int64(n); err != nil && !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	blob.Close()
	c.Close()
	b.StartTimer()
}
