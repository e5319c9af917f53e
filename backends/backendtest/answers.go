// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// What stands in the place of a service answers with success, and with something else
// than was asked for. That says nothing of the image: it is ErrBadAnswer, and the
// message tells where it was asked.
var answerTests = []subtest{
	{name: "Answers/address", http: true, run: func(t *testing.T, s *suite) {
		if at := s.open(t).address(); at == "" {
			t.Error("the backend does not tell its address (backends.Addressed): messages have to name it")
		}
	}},
	answerTest("page", status(200, html, "Content-Type", "text/html; charset=utf-8")),
	answerTest("page-said-to-be-json", status(200, html, "Content-Type", "application/json")),
	answerTest("empty", status(200, "", "Content-Type", "application/json"), backends.ErrUnavailable),
	answerTest("null", status(200, "null", "Content-Type", "application/json")),
	answerTest("other-object", status(200, `{"status":"ok"}`, "Content-Type", "application/json")),
	answerTest("other-array", status(200, `[["x",1]]`, "Content-Type", "application/json")),
	answerTest("text", status(200, "It works!", "Content-Type", "text/plain")),
	answerTest("error-inside", status(200, `{"errors":[{"code":"UNKNOWN","message":"database is locked"}]}`, "Content-Type", "application/json")),
	answerTest("400", status(400, `{}`)),
	{name: "Answers/truncated", http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		half := bodies(1, func(body []byte) ([]byte, bool) { return body[:len(body)/2], true })
		r.wire.set(func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
			if req.Method == http.MethodHead {
				return next.RoundTrip(req)
			}
			return half(req, jsonOnly{next})
		})
		c := r.impatient()
		got, err := c.Stat(t.Context(), img.Ref)
		checkAnswer(t, r, "Stat", err, got.Version == img.Version, backends.ErrUnavailable)
		checkListing(t, s, r, c, backends.ErrUnavailable) // it may have been cut off
	}},
}

// jsonOnly passes on what is JSON: half of a page for people is a page too.
type jsonOnly struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (o jsonOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.next.RoundTrip(req)
	if err == nil && !strings.Contains(resp.Header.Get("Content-Type"), "json") {
		resp.ContentLength = -1
	}
	return resp, err
}

// answerTest asks for facts, bytes and a listing while everything gets that answer,
// which may be taken for one of or too.
func answerTest(name string, f fault, or ...error) subtest {
	return subtest{name: "Answers/" + name, http: true, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		r.wire.set(f)
		c := r.impatient()
		got, err := c.Stat(t.Context(), img.Ref)
		checkAnswer(t, r, "Stat", err, got.Version == img.Version, or...)
		_, err = read(t.Context(), c, img, 0, -1)
		checkAnswer(t, r, "Open", err, false, or...)
		checkListing(t, s, r, c, or...)
	}}
}

func checkListing(t *testing.T, s *suite, r *remote, c *backends.Client, or ...error) {
	t.Helper()
	if !s.Caps.Has(backends.CanList) {
		return
	}
	entries, err := backends.Collect(c.List(t.Context(), "library"))
	checkAnswer(t, r, "List", err, slices.ContainsFunc(entries, func(e backends.Entry) bool { return e.Image.Ref == r.seed.Images[0].Ref }), or...)
}

// impatient returns a client that does not try again for long.
func (r *remote) impatient() *backends.Client {
	return backends.NewClient("conformance", r.Backend, backends.ClientOptions{MaxElapsed: time.Second})
}

// address is the host of the service, as the backend tells it.
func (r *remote) address() string {
	u, err := url.Parse(backends.AddressOf(r.Backend))
	if err != nil {
		return ""
	}
	return u.Host
}

// checkAnswer looks at the error for an answer that makes no sense. What the backend
// knew before it need not ask for.
func checkAnswer(t *testing.T, r *remote, op string, err error, known bool, or ...error) {
	t.Helper()
	if slices.ContainsFunc(or, func(s error) bool { return errors.Is(err, s) }) {
		return
	}
	switch {
	case err == nil && known:
	case err == nil:
		t.Errorf("%s of an answer that makes no sense gives no error", op)
	case !errors.Is(err, backends.ErrBadAnswer), errors.Is(err, backends.ErrCorrupt), errors.Is(err, fs.ErrNotExist), errors.Is(err, context.DeadlineExceeded):
		t.Errorf("%s: %v, want ErrBadAnswer", op, err)
	case !strings.Contains(err.Error(), r.address()):
		t.Errorf("%s: %v\ndoes not name %s", op, err, r.address())
	}
}
