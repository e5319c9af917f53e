// SPDX-License-Identifier: Apache-2.0

package sregistry_test

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/sregistry"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// The library API makes a nameless image for each push. One that is given up leaves none
// of them, one that is tried again goes on with the same.
func TestPush_leftovers(t *testing.T) {
	t.Parallel()
	content := bytesOf("x", 120_000)
	for _, tt := range []struct {
		name  string
		parts bool
		fault func(req *http.Request) *http.Response // nil: none
		err   error
		left  int
		spoil bool // the bytes are others than were announced
	}{
		{name: "works"},
		{name: "works in parts", parts: true},
		{name: "other bytes", err: backends.ErrCorrupt, spoil: true},
		{name: "other bytes in parts", parts: true, err: backends.ErrCorrupt, spoil: true},
		{name: "the store refuses", err: fs.ErrPermission, fault: func(req *http.Request) *http.Response {
			return refusal(req, http.MethodPut, "/sregistry/", 403)
		}},
		{name: "the tag is taken meanwhile", err: fs.ErrExist},
		{name: "the store is away", err: backends.ErrUnavailable, fault: func(req *http.Request) *http.Response {
			return refusal(req, http.MethodPut, "/sregistry/", 503)
		}},
		{name: "the store goes away", parts: true, err: backends.ErrUnavailable, left: 1, fault: func(req *http.Request) *http.Response {
			if req.URL.Query().Get("partNumber") != "2" {
				return nil
			}
			return refusal(req, http.MethodPut, "/sregistry/", 503)
		}},
		// Nobody knows whether it has the name: deleting it could delete the image.
		{name: "the tag's answer is lost", err: backends.ErrUnavailable, left: 1, fault: func(req *http.Request) *http.Response {
			return refusal(req, http.MethodPost, "/v1/tags/", 502)
		}},
		{name: "the tag's answer is odd", err: backends.ErrBadAnswer, left: 1, fault: func(req *http.Request) *http.Response {
			return refusal(req, http.MethodPost, "/v1/tags/", 200)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := sregistrytest.Start(t, sregistrytest.Options{PartSize: 50_000})
			srv.AddCollection("c", sregistrytest.User, false)
			hc := backends.NewHTTPClient(backends.HTTPOptions{})
			t.Cleanup(hc.CloseIdleConnections)
			away := true
			hc.Transport = editing{hc.Transport, func(req *http.Request, next http.RoundTripper) (*http.Response, error) {
				if strings.HasSuffix(req.URL.Path, "/_complete") && tt.err == fs.ErrExist { //nolint:errorlint // the sentinel itself
					srv.Add(sregistrytest.Image{Collection: "c", Name: "i", Tag: "1", Content: bytesOf("y", 700)})
				}
				if tt.fault != nil && away {
					if resp := tt.fault(req); resp != nil {
						return resp, nil
					}
				}
				return next.RoundTrip(req)
			}}
			b := newRemoteVia(t, hc, srv.URL, sregistrytest.Token)
			if tt.parts {
				sregistry.SetPartSize(b, 50_000)
			}
			src := backendtest.Source(content)
			if tt.spoil {
				src.Content = strings.NewReader(string(bytesOf("z", len(content))))
			}
			src.Session = new(backendtest.Session)
			for range 3 {
				if _, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src); !errors.Is(err, tt.err) || tt.err == nil && err != nil {
					t.Errorf("Push = %v, want %v", err, tt.err)
				}
				if got := srv.Nameless(); got != tt.left {
					t.Errorf("%d images without a name are left, want %d", got, tt.left)
				}
			}
			if away = false; tt.left == 0 {
				return
			}
			// Its server cleans up in between, as another push does.
			if tt.name == "the store goes away" {
				srv.DropNameless()
			}
			img, err := b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
			if errors.Is(err, backends.ErrUnavailable) { // the upload is gone, as it has found out
				img, err = b.Push(t.Context(), backendtest.Ref(t, "c/i:1"), src)
			}
			if err != nil {
				t.Fatalf("the next try: %v", err)
			}
			backendtest.WantRead(t, b, img, 0, -1, content)
			if got := srv.Nameless(); got != 0 {
				t.Errorf("%d images without a name are left in the end", got)
			}
		})
	}
}

// refusal is what answers that request in the server's place; nil for others.
func refusal(req *http.Request, method, path string, status int) *http.Response {
	if req.Method != method || !strings.HasPrefix(req.URL.Path, path) {
		return nil
	}
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<html>")), Request: req}
}
