// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A request is one that the registry was asked, on either of its ports.
type request struct {
	at       time.Time
	conn     int64 // number of the connection on its port
	cdn      bool  // it came to where blobs are redirected to
	fresh    bool  // it is the first one of its connection
	method   string
	path     string
	bytes    string // of a Range header, "0-1048575"; "" for all
	exchange *exchange
}

// logged notes every request before h answers it.
func (r *registry) logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if c, ok := req.Context().Value(connKey{}).(*linkConn); ok {
			e, fresh := c.begin()
			r.mu.Lock()
			r.log = append(r.log, &request{
				at: time.Now(), conn: c.id, cdn: strings.HasSuffix(r.cdn, req.Host), fresh: fresh, method: req.Method, path: req.URL.Path,
				bytes: strings.TrimPrefix(req.Header.Get("Range"), "bytes="), exchange: e,
			})
			r.mu.Unlock()
		}
		h.ServeHTTP(w, req)
	})
}

// forget empties the log.
func (r *registry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

// A traffic is what was asked of a registry since forget.
type traffic struct {
	requests int
	fresh    int   // connections
	bytes    int64 // sent in answer to requests for blobs and files, with their headers
}

func (r *registry) traffic() (t traffic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.log {
		t.requests++
		if q.fresh {
			t.fresh++
		}
		if q.cdn || strings.Contains(q.path, "/blobs/") || strings.HasPrefix(q.path, "/files/") {
			t.bytes += q.exchange.sent.Load()
		}
	}
	return t
}

// printTimeline writes a line for each request since forget: when it came, was
// answered first and last (milliseconds since start), on which connection ("+"
// for its first request), and what it was.
func (r *registry) printTimeline(w io.Writer, start time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	since := func(at time.Time) float64 { return float64(at.Sub(start).Microseconds()) / 1000 }
	stamp := func(nano int64) string {
		if nano == 0 {
			return "never"
		}
		return fmt.Sprintf("%.1f", since(time.Unix(0, nano)))
	}
	fmt.Fprintln(w, "    came ms    first     last  conn        sent  request")
	for _, q := range r.log {
		conn := fmt.Sprint(q.conn)
		if q.fresh {
			conn += "+"
		}
		path := q.path
		if len(path) > 60 {
			path = path[:30] + "…" + path[len(path)-10:]
		}
		e := q.exchange
		fmt.Fprintf(w, "  %9.1f %8s %8s %5s %11d  %s %s %s\n", since(q.at), stamp(e.first.Load()), stamp(e.last.Load()), conn, e.sent.Load(),
			q.method, path, q.bytes)
	}
}
