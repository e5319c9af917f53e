// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/globus/globustest"
)

// A delete whose task fails, or does not go on, says why, is cancelled, and leaves the file.
func TestDelete_faults(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault globustest.Fault
		is    error
		says  string
		away  bool
	}{
		"fails":       {globustest.Fault{Fatal: "PERMISSION_DENIED"}, fs.ErrPermission, "permission denied", false},
		"fails oddly": {globustest.Fault{Fatal: "INTERNAL_ERROR"}, backends.ErrUnavailable, `"INTERNAL_ERROR" "internal error"`, true},
		"denied":      {globustest.Fault{NiceStatus: "PERMISSION_DENIED"}, fs.ErrPermission, "permission denied", false},
		"away":        {globustest.Fault{NiceStatus: "GC_NOT_CONNECTED"}, backends.ErrUnavailable, "start Globus Connect Personal", true},
		"paused":      {globustest.Fault{Paused: true}, backends.ErrUnavailable, "administrator of the collection has paused", true},
		"login":       {globustest.Fault{NiceStatus: "NO_CREDENTIALS"}, backends.ErrUnauthorized, "sreg login conformance", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := globustest.Start(t, globustest.Options{})
			id := srv.Add(globustest.Collection{})
			srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
			c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
			img, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "c", Name: "a", Tag: "1"})
			if err != nil {
				t.Fatal(err)
			}
			srv.Break(id, test.fault)
			srv.Requests()
			err = c.Delete(t.Context(), img)
			_, away := errors.AsType[*backoff.PermanentError](err)
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) || away != test.away {
				t.Errorf("%v, want %v with %q", err, test.is, test.says)
			}
			if got := srv.Requests()["cancel"]; (got == 1) != (test.fault.Fatal == "") {
				t.Errorf("cancelled %d times", got)
			}
			if got := srv.Paths(id); !slices.Equal(got, []string{"/c/a:1.sif"}) {
				t.Errorf("left: %q", got)
			}
		})
	}
}

// Who stops waiting for a task leaves it to its work.
func TestDelete_stopped(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{Polls: 1000})
	id := srv.Add(globustest.Collection{})
	srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	img, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "c", Name: "a", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	next := c.http.Transport
	c.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/task/") {
			cancel()
		}
		return next.RoundTrip(req)
	})
	if err := c.Delete(ctx, img); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	if _, err := c.Reader.Stat(t.Context(), img.Ref); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// A task whose end is not told is done all the same.
func TestDelete_untold(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{Polls: 1})
	id := srv.Add(globustest.Collection{})
	srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	img, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "c", Name: "a", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	next := c.http.Transport
	c.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/task/") {
			return nil, errors.New("connection reset by peer")
		}
		return next.RoundTrip(req)
	})
	if err := c.Delete(t.Context(), img); err != nil {
		t.Error(err)
	}
	if got := srv.Paths(id); len(got) > 0 {
		t.Errorf("left: %q", got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// An upload that is whole is not sent again when its rename has failed, and what cannot be
// pushed leaves nothing.
func TestPush_again(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{})
	c := open(t, srv, nil, map[string]any{"endpoint": id}, secret)
	next, broken, lost := c.http.Transport, true, false
	reset := errors.New("connection reset by peer")
	c.http.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
		if broken && strings.HasSuffix(req.URL.Path, "/rename") {
			return nil, reset
		}
		resp, err := next.RoundTrip(req)
		if err == nil && lost && strings.HasSuffix(req.URL.Path, "/rename") {
			resp.Body.Close()
			return nil, reset
		}
		return resp, err
	})
	ref, src := backends.Ref{Collection: "c", Name: "a", Tag: "1"}, backendtest.Source([]byte("abc"))
	if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, backends.ErrUnavailable) {
		t.Fatalf("%v, want ErrUnavailable", err)
	}
	if _, err := c.Reader.Stat(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is visible: %v", err)
	}
	broken, lost = false, true
	srv.Requests()
	if _, err := c.Push(t.Context(), ref, src); err != nil {
		t.Fatal(err)
	}
	if got := srv.Requests()["PUT"]; got != 0 {
		t.Errorf("sent again %d times", got)
	}
	if got := srv.Paths(id); !slices.Equal(got, []string{"/c/a:1.sif"}) {
		t.Errorf("there is %q", got)
	}
	lost = false
	if _, err := c.Push(t.Context(), ref, backendtest.Source([]byte("other"))); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another: %v, want ErrExist", err)
	}
	src = backendtest.Source([]byte("abcd"))
	src.Commit = func() error { return backends.ErrChanged }
	if _, err := c.Push(t.Context(), backends.Ref{Collection: "c", Name: "b", Tag: "1"}, src); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("not allowed: %v, want ErrChanged", err)
	}
	srv.Settle()
	if got := srv.Paths(id); !slices.Equal(got, []string{"/c/a:1.sif"}) {
		t.Errorf("left: %q", got)
	}
}
