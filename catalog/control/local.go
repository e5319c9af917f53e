// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// Local returns a client of h in this process. There is nothing to close.
func Local(h http.Handler) *Client {
	return &Client{http: &http.Client{Transport: localTransport{h}}}
}

// A localTransport calls a handler without a connection.
type localTransport struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper. The handler runs until it returns or
// the body is closed, which waits for it.
func (t localTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	body, out := io.Pipe()
	w := &localWriter{header: make(http.Header), out: out, started: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.handler.ServeHTTP(w, r.WithContext(ctx))
		w.WriteHeader(http.StatusOK)
		_ = out.Close()
	}()
	<-w.started
	return &http.Response{
		Status:        http.StatusText(w.status),
		StatusCode:    w.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        w.header,
		Body:          &localBody{PipeReader: body, cancel: cancel, done: done},
		ContentLength: -1,
		Request:       r,
	}, nil
}

type localWriter struct {
	header  http.Header
	out     *io.PipeWriter
	once    sync.Once
	status  int
	started chan struct{} // closed when header and status are final
}

func (w *localWriter) Header() http.Header { return w.header }

func (w *localWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status = status
		close(w.started)
	})
}

func (w *localWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.out.Write(p)
}

type localBody struct {
	*io.PipeReader
	cancel context.CancelFunc
	done   <-chan struct{}
}

// Close ends the handler's work and waits for it, so that nothing goes on behind
// the back of a caller that has its error.
func (b *localBody) Close() error {
	b.cancel()
	err := b.PipeReader.Close()
	<-b.done
	return err
}
