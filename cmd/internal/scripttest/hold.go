// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"net/http"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// A hold lets a registry stop in the middle of every download.
type hold struct {
	held chan struct{} // gets one for each that has stopped
	free chan struct{} // closed when they may go on
}

// holdFrom is how many bytes of each answer get through.
const holdFrom = 64 << 10

func (s *script) holdRegistry(ts *testscript.TestScript, _ bool, _ []string) {
	h := &hold{held: make(chan struct{}, 1000), free: make(chan struct{})}
	s.hold = h
	s.registry.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				w = &heldWriter{ResponseWriter: w, hold: h, gone: r.Context().Done()}
			}
			next.ServeHTTP(w, r)
		})
	})
	ts.Defer(h.release)
}

func (s *script) awaitHeld(*testscript.TestScript, bool, []string)       { <-s.hold.held }
func (s *script) releaseRegistry(*testscript.TestScript, bool, []string) { s.hold.release() }

func (h *hold) release() {
	select {
	case <-h.free:
	default:
		close(h.free)
	}
}

// A heldWriter stops once it has written so much.
type heldWriter struct {
	http.ResponseWriter
	hold    *hold
	gone    <-chan struct{} // the client is
	written int
}

// Write implements io.Writer.
func (w *heldWriter) Write(p []byte) (int, error) {
	if w.written += len(p); w.written > holdFrom {
		_ = http.NewResponseController(w.ResponseWriter).Flush() // what came before must arrive
		select {
		case w.hold.held <- struct{}{}:
		default:
		}
		select {
		case <-w.hold.free:
		case <-w.gone:
			return 0, http.ErrAbortHandler
		}
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *heldWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
