// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// A wire is the transport between the backend and its service. A fault set on
// it applies to every request from then on.
type wire struct {
	next     http.RoundTripper
	requests atomic.Int64

	mu    sync.Mutex // guards the field below
	fault fault
}

// A fault answers a request in the place of the service (next).
type fault func(req *http.Request, next http.RoundTripper) (*http.Response, error)

func (w *wire) set(f fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = f
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	w.requests.Add(1)
	w.mu.Lock()
	f := w.fault
	w.mu.Unlock()
	if f == nil {
		return w.next.RoundTrip(req)
	}
	return f(req, w.next)
}

// CloseIdleConnections passes on what http.Client asks for.
func (w *wire) CloseIdleConnections() {
	if c, ok := w.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// status answers everything with one status; header is in pairs.
func status(code int, body string, header ...string) fault {
	return func(req *http.Request, _ http.RoundTripper) (*http.Response, error) {
		drain(req)
		h, body := http.Header{}, body
		for i := 0; i+1 < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		if req.Method == http.MethodHead {
			body = ""
		}
		return &http.Response{
			StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h,
			ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)), Request: req,
		}, nil
	}
}

// reset breaks every connection.
func reset(req *http.Request, _ http.RoundTripper) (*http.Response, error) {
	drain(req)
	return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
}

// hang answers nothing until the request's context ends.
func hang(req *http.Request, _ http.RoundTripper) (*http.Response, error) {
	<-req.Context().Done()
	drain(req)
	return nil, context.Cause(req.Context())
}

// times applies f to the first n requests.
func times(n int64, f fault) fault {
	var count atomic.Int64
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		if count.Add(1) <= n {
			return f(req, next)
		}
		return next.RoundTrip(req)
	}
}

// bodies changes the body of every successful answer of at least least bytes.
// edit says what becomes of it, and whether the headers tell of its new length.
func bodies(least int64, edit func(body []byte) (_ []byte, told bool)) fault {
	return func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil || resp.StatusCode/100 != 2 || req.Method == http.MethodHead || resp.ContentLength < least {
			return resp, err
		}
		whole, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		edited, told := edit(whole)
		if told {
			resp.ContentLength = int64(len(edited))
			resp.Header.Del("Content-Length")
			resp.Body = io.NopCloser(bytes.NewReader(edited))
			return resp, nil
		}
		resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader(edited), broken{}))
		return resp, nil
	}
}

// broken is the end of a body whose connection broke.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// drain does to a request's body what a transport must.
func drain(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}
