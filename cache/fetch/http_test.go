// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A sharedListener lets all its connections together send so many bytes a second.
type sharedListener struct {
	net.Listener
	rate int64
	sent atomic.Int64

	mu   sync.Mutex // guards the field below
	free time.Time
}

func (l *sharedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &sharedConn{c, l}, nil
}

type sharedConn struct {
	net.Conn
	from *sharedListener
}

func (c *sharedConn) Write(p []byte) (n int, err error) {
	for l := c.from; n < len(p) && err == nil; {
		part := min(packet, len(p)-n)
		l.mu.Lock()
		if now := time.Now(); l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(int64(part) * int64(time.Second) / l.rate))
		wait := time.Until(l.free)
		l.mu.Unlock()
		time.Sleep(wait)
		part, err = c.Conn.Write(p[n : n+part])
		n += part
		l.sent.Add(int64(part))
	}
	return n, err
}

// An httpService asks for ranges over HTTP.
type httpService struct {
	backends.Backend
	client *http.Client
	url    string
}

func (s *httpService) Open(ctx context.Context, _ backends.Image, off, n int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	answer, err := s.client.Do(req)
	if err != nil {
		return nil, backends.TransportError(err)
	}
	return answer.Body, nil
}

// Over a real connection: what a reader waits for comes before the rest of the image. What
// counts is what the server sends in the meantime, so the test does not depend on how
// fast this machine is.
func TestDownload_sharedConnection(t *testing.T) {
	t.Parallel()
	const most = 6 * mib // a read with all that lies in the buffers of the connections
	image := content(96 * mib)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &sharedListener{Listener: plain, rate: 8e6}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "image", time.Time{}, bytes.NewReader(image))
	}))
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	d, f := downloadFrom(t, &httpService{client: client, url: server.URL}, int64(len(image)), Options{Delay: time.Hour})
	if err := d.Await(t.Context(), 0, mib, new(Window)); err != nil { // the kernel's read-ahead: all is wanted
		t.Fatal(err)
	}
	for l.sent.Load() < 6*mib {
		time.Sleep(10 * time.Millisecond)
	}
	for _, share := range places {
		before := l.sent.Load()
		mustHave(t, d, f, image, int64(share*float64(len(image)))&^4095, 64<<10)
		if sent := l.sent.Load() - before; sent > most {
			t.Errorf("%d bytes were sent until a read at %.2f had its own, want at most %d", sent, share, most)
		}
	}
}
