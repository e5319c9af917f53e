// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// impatient is a transport for a service that sends or takes a byte now and then.
// The limits are far above what it does, and far below what it does else.
var impatient = backends.HTTPOptions{
	UserAgent: "backendtest", HeaderTimeout: 300 * time.Millisecond, IdleTimeout: 300 * time.Millisecond, MinRate: 50_000,
}

const dripEvery = 20 * time.Millisecond

var dripTests = []subtest{
	{name: "Drip/read", http: true, run: func(t *testing.T, s *suite) {
		big := sized("library/image:1", 300_000)
		r := s.openWith(t, impatient, big)
		c := backends.NewClient("conformance", r.Backend, backends.ClientOptions{MaxElapsed: time.Second})
		img := stat(t.Context(), t, r, big.Ref)
		drips := between(t, func(w http.ResponseWriter, _ *http.Request, forward func() (*http.Response, error)) {
			pass(slow(w), forward)
		})
		r.wire.set(drips)
		got, err := read(t.Context(), c, img, 0, -1)
		if !gaveUp(err) || !bytes.HasPrefix(big.Content, got) {
			t.Errorf("a drip of an image: %d bytes, %v, want an end", len(got), err)
		}
		// Short answers may be here before anybody loses patience.
		if _, err := c.Stat(t.Context(), img.Ref); err != nil && !gaveUp(err) {
			t.Errorf("Stat by drips: %v", err)
		}
		if !s.Caps.Has(backends.CanList) {
			return
		}
		if entries, err := backends.Collect(c.List(t.Context(), "library")); err == nil && len(entries) != 1 || err != nil && !gaveUp(err) {
			t.Errorf("List by drips: %d entries, %v", len(entries), err)
		}
	}},
	{name: "Drip/push", http: true, needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		old := image("library/image:1")
		r := s.openWith(t, impatient, old)
		c := backends.NewClient("conformance", r.Backend, backends.ClientOptions{MaxElapsed: time.Second})
		drips := between(t, func(w http.ResponseWriter, req *http.Request, forward func() (*http.Response, error)) {
			if req.ContentLength > 100_000 {
				// Of a client that has gone the server only hears at the end of the body.
				req.Body = io.NopCloser(dripping{req.Body, t.Context()})
			}
			pass(w, forward)
		})
		r.wire.set(drips)
		src := source(content("other", 3<<20))
		src.Replaces = backends.ReplaceAny
		if _, err := c.Push(t.Context(), old.Ref, src); !gaveUp(err) {
			t.Errorf("a push of which a byte is taken now and then: %v, want an end", err)
		}
		r.wire.set(nil)
		wantImage(t, r, old)
	}},
}

func gaveUp(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, backends.ErrUnavailable)
}

// slow makes w send a byte now and then.
func slow(w http.ResponseWriter) http.ResponseWriter { return &slowWriter{w} }

type slowWriter struct{ http.ResponseWriter }

func (w *slowWriter) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := w.ResponseWriter.Write(p[i : i+1]); err != nil {
			return i, err
		}
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return i, fmt.Errorf("flush: %v", err)
		}
		<-time.After(dripEvery)
	}
	return len(p), nil
}

// dripping is a body that is taken by bytes.
type dripping struct {
	io.Reader
	ctx context.Context //nolint:containedctx // of the test
}

func (d dripping) Read(p []byte) (int, error) {
	select {
	case <-time.After(dripEvery):
		return d.Reader.Read(p[:min(len(p), 1)])
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
}
