// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

func TestError(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		200: nil, 206: nil, 401: backends.ErrUnauthorized, 403: fs.ErrPermission, 404: fs.ErrNotExist, 410: fs.ErrNotExist,
		409: fs.ErrExist, 412: fs.ErrExist, 405: errors.ErrUnsupported, 501: errors.ErrUnsupported, 416: fs.ErrInvalid,
		429: backends.ErrRateLimited, 413: syscall.EFBIG, 507: syscall.EDQUOT, 408: backends.ErrUnavailable, 500: backends.ErrUnavailable, 503: backends.ErrUnavailable, 599: backends.ErrUnavailable,
		400: backends.ErrBadAnswer, 418: backends.ErrBadAnswer, 304: backends.ErrBadAnswer,
	} {
		if err := Error(&http.Response{StatusCode: status}); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("HTTP %d: %v, want %v", status, err, want)
		}
	}
}

type closer struct {
	io.Reader
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

func TestError_detail(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		"no such \x1b[31mthing\nsecond line": `not found: HTTP 404 "no such \x1b[31mthing"`,
		"":                                   "not found: HTTP 404",
		"see https://h/x?sig=secret":         `not found: HTTP 404 "see https://h/x?…"`,
		strings.Repeat("x", 300):             `not found: HTTP 404 "` + strings.Repeat("x", maxDetail) + `"`,
	} {
		c := &closer{Reader: strings.NewReader(body)}
		if got := Error(&http.Response{StatusCode: 404, Body: c}).Error(); got != want || !c.closed {
			t.Errorf("%q gives %s, want %s; closed: %v", body, got, want, c.closed)
		}
	}
	page := &http.Response{StatusCode: 503, Header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}, Body: io.NopCloser(strings.NewReader("<html>"))}
	if got := Error(page).Error(); strings.Contains(got, "html") {
		t.Errorf("a page for people is quoted: %s", got)
	}
}

func TestError_retryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for value, want := range map[string]time.Duration{
			"": 0, "0": 0, "30": 30 * time.Second, "-5": 0, "x": 0, "1.5": 0, "99999999999": 0, "4000000000": maxDelay,
			time.Now().UTC().Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
			time.Now().UTC().Add(-time.Hour).Format(http.TimeFormat):       0,
		} {
			err := Error(&http.Response{StatusCode: 429, Header: http.Header{"Retry-After": {value}}})
			if got := backends.RetryAfter(err); got != want || !errors.Is(err, backends.ErrRateLimited) {
				t.Errorf("Retry-After: %s is %v (%v), want %v", value, got, err, want)
			}
		}
	})
}

func TestDo(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }))
	do := func(ctx context.Context, ok ...int) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"?sig=secret", nil)
		if err != nil {
			t.Fatal(err)
		}
		return Do(srv.Client(), req, ok...)
	}
	if _, err := do(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
	resp, err := do(t.Context(), 410, 404)
	if err != nil || resp.StatusCode != 404 {
		t.Fatalf("%v, want the 404 that was asked for", err)
	}
	resp.Body.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := do(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	srv.Close()
	if _, err := do(t.Context()); !errors.Is(err, backends.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var v struct{ A int }
	if err := JSON(strings.NewReader(`{"a": 5, "b": []}`), &v); err != nil || v.A != 5 {
		t.Errorf("%+v, %v", v, err)
	}
	var deep any
	for name, body := range map[string]io.Reader{
		"html":     strings.NewReader("<html>"),
		"empty":    strings.NewReader(""),
		"half":     strings.NewReader(`{"a":`),
		"two":      strings.NewReader(`{}{}`),
		"deep":     strings.NewReader(strings.Repeat("[", 1_000_000)),
		"too long": io.LimitReader(spaces{}, 1<<40),
	} {
		if err := JSON(body, &deep); !errors.Is(err, backends.ErrBadAnswer) {
			t.Errorf("%s: %v, want ErrBadAnswer", name, err)
		}
	}
	if err := JSON(iotest.ErrReader(io.ErrUnexpectedEOF), &deep); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("a broken connection: %v, want ErrUnavailable", err)
	}
	if err := JSON(iotest.ErrReader(context.Canceled), &deep); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
