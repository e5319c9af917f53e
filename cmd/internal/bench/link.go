// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A limited connection sends sliceTime's worth at once, so that the limit
	// holds within a small request too, but no fewer and no more bytes than these.
	sliceTime          = time.Millisecond
	minSlice, maxSlice = 4 << 10, 64 << 10
	// maxLate is how far behind its schedule a sender may catch up. The timers of
	// Linux and of Go's scheduler come up to a few milliseconds late, which must
	// not count; a peer that did not read for long has lost its turn.
	maxLate = 20 * time.Millisecond
)

// A link is what lies between a server here and its clients: on loopback, but
// with a round-trip time and limits. It can be changed at any time. The zero value
// is loopback as it is.
//
// What it does not model is TCP: no slow start, no loss, no queue that one
// connection fills for another.
type link struct {
	rtt    atomic.Int64 // nanoseconds
	each   atomic.Int64 // bytes a second of each connection; 0 is no limit
	all    atomic.Int64 // bytes a second of all together; 0 is no limit
	up     atomic.Int64 // bytes a second of each connection to the server; 0 is no limit
	shared meter        // of all together
}

// A network is what a link can be set to, 0 being no limit.
type network struct {
	rtt       time.Duration
	each, all int64 // bytes a second, see link
}

func (n network) String() string {
	if n.each == 0 {
		return fmt.Sprintf("%d ms, no limit", n.rtt.Milliseconds())
	}
	return fmt.Sprintf("%d ms, %d MB/s a connection", n.rtt.Milliseconds(), n.each/1e6)
}

func (l *link) set(n network) {
	l.rtt.Store(int64(n.rtt))
	l.each.Store(n.each)
	l.all.Store(n.all)
}

// A meter hands out the time of a wire: the next sender begins when the one
// before has ended.
type meter struct {
	mu   sync.Mutex // guards the field below
	free time.Time  // when the wire is free again
}

// reserve takes the wire for n bytes, which could leave from the given time on,
// and returns when the last bit of them will have left.
func (m *meter) reserve(n int, rate int64, from time.Time) time.Time {
	from = later(from, time.Now().Add(-maxLate))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = later(m.free, from).Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	return m.free
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// A linkListener accepts connections behind the link.
type linkListener struct {
	net.Listener
	link *link
	last atomic.Int64 // number of connections so far
}

func (l *linkListener) Accept() (net.Conn, error) {
	next, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp, ok := next.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(errors.ErrUnsupported, next.Close())
	}
	// The handshake costs one round trip: what comes before that is over is not
	// here yet.
	rtt := time.Duration(l.link.rtt.Load())
	return &linkConn{TCPConn: tcp, link: l.link, id: l.last.Add(1), here: time.Now().Add(rtt)}, nil
}

// A linkConn delays what a server sends. One round trip lies between the last
// byte that came and the first of the answer to it; bytes after that flow.
type linkConn struct {
	*net.TCPConn
	link *link
	id   int64
	here time.Time                // when the connection is made
	wire meter                    // from here
	in   meter                    // to here
	now  atomic.Pointer[exchange] // nil before the first

	mu  sync.Mutex // guards the field below
	due time.Time  // the next answer may be with the client from then on
}

// Read notes when something was heard.
func (c *linkConn) Read(p []byte) (int, error) {
	up := c.link.up.Load()
	n, err := c.TCPConn.Read(p[:min(len(p), sliceOf(up))])
	if up > 0 && n > 0 {
		time.Sleep(time.Until(c.in.reserve(n, up, time.Now().Add(-maxLate))))
	}
	if n > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.due = later(time.Now(), c.here).Add(time.Duration(c.link.rtt.Load()))
	}
	return n, err
}

// Write sends p in slices.
func (c *linkConn) Write(p []byte) (total int, err error) {
	for len(p) > 0 && err == nil {
		var n int
		n, err = c.TCPConn.Write(p[:min(len(p), c.pause(len(p)))])
		c.sent(n)
		total += n
		p = p[n:]
	}
	return total, err
}

// ReadFrom lets the kernel send from a file, in slices.
func (c *linkConn) ReadFrom(r io.Reader) (total int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: r, N: 1 << 62}
	}
	for limited.N > 0 {
		want := int64(c.pause(int(min(limited.N, 1<<30))))
		// Directly a LimitedReader of the file: that is what sendfile is found by.
		n, err := c.TCPConn.ReadFrom(&io.LimitedReader{R: limited.R, N: want})
		c.sent(int(n))
		total += n
		limited.N -= n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// pause waits until some of n bytes may be sent and returns how many.
func (c *linkConn) pause(n int) int {
	c.mu.Lock()
	from := c.due
	c.mu.Unlock()
	each, all := c.link.each.Load(), c.link.all.Load()
	n = min(n, sliceOf(each), sliceOf(all))
	until := from
	if each > 0 {
		until = c.wire.reserve(n, each, from)
	}
	if all > 0 {
		// Only when the turn of this connection has come: who is far away, or
		// slow, does not keep the others from the shared wire.
		time.Sleep(time.Until(from))
		until = later(until, c.link.shared.reserve(n, all, from))
	}
	time.Sleep(time.Until(until))
	return n
}

// sliceOf returns how many bytes to send at once at a rate.
func sliceOf(rate int64) int {
	if rate <= 0 {
		return 16 * maxSlice
	}
	return max(minSlice, min(int(rate*int64(sliceTime)/int64(time.Second)), maxSlice))
}

// An exchange is what was sent in answer to a request.
type exchange struct {
	sent        atomic.Int64 // bytes, with the header
	first, last atomic.Int64 // Unix nanoseconds of when its first and last bytes left; 0 before
}

func (c *linkConn) sent(n int) {
	if e := c.now.Load(); e != nil && n > 0 {
		now := time.Now().UnixNano()
		e.last.Store(now)
		e.first.CompareAndSwap(0, now)
		e.sent.Add(int64(n))
	}
}
