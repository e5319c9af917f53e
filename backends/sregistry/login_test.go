// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/sregistry/sregistrytest"
)

// opened opens the backend with a login.
func opened(t *testing.T, url, user, token string, settings ...string) *client {
	t.Helper()
	config := map[string]any{"url": url}
	for i := 0; i+1 < len(settings); i += 2 {
		config[settings[i]] = settings[i+1]
	}
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	b, err := Open(t.Context(), backends.Env{Remote: "lab", HTTP: hc, User: user, Config: config,
		Secret: func(context.Context, bool) (string, error) { return token, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return b.(*client)
}

// A login is what only the right one can do: what is public is given to any token, and
// a token that is good is not yet the user's.
func TestCheckLogin(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: old})
		srv.Add(sregistrytest.Image{Collection: "public", Name: "i", Tag: "1", Content: []byte("x")})
		for _, tt := range []struct {
			user, token string
			wrong       bool
		}{
			{user: sregistrytest.User, token: sregistrytest.Token},
			{user: sregistrytest.Guest, token: sregistrytest.GuestToken},
			{user: sregistrytest.User, token: "another", wrong: true},
			// An old server cannot be asked whose a token is.
			{user: sregistrytest.User, token: sregistrytest.GuestToken, wrong: !old},
			{user: "nobody", token: sregistrytest.Token, wrong: !old},
			{user: "", token: sregistrytest.Token, wrong: !old},
		} {
			err := opened(t, srv.URL, tt.user, tt.token).CheckLogin(t.Context())
			if tt.wrong != errors.Is(err, backends.ErrUnauthorized) || !tt.wrong && err != nil {
				t.Errorf("library %v, %q with %q: %v", !old, tt.user, tt.token, err)
			}
			if err != nil && strings.Contains(err.Error(), tt.token) {
				t.Errorf("the error tells the token: %v", err)
			}
		}
	}
}

// The views of the old upload say 500 to a wrong token, and to who is not the owner.
func TestPush_refusedUpload(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		for _, tt := range []struct {
			user, token, collection string
			want                    error
		}{
			{sregistrytest.User, "another", "mine", backends.ErrUnauthorized},
			{"nobody", sregistrytest.Token, "mine", fs.ErrPermission},
			{sregistrytest.Guest, sregistrytest.GuestToken, "mine", fs.ErrPermission},
		} {
			srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: old})
			srv.AddCollection("mine", sregistrytest.User, false)
			b := opened(t, srv.URL, tt.user, tt.token, "push_by", "upload")
			_, err := b.Push(t.Context(), backends.Ref{Collection: tt.collection, Name: "i", Tag: "1"}, backendtest.Source([]byte("content")))
			if !errors.Is(err, tt.want) || errors.Is(err, backends.ErrUnavailable) {
				t.Errorf("library %v, %s with %s: %v, want %v", !old, tt.user, tt.token, err, tt.want)
			}
			if srv.Content("mine", "i", "1") != nil || srv.Count("POST /upload") > 0 {
				t.Error("the image was sent")
			}
		}
	}
}

// The first request shows the hour of the server: no image is sent twice for it, and no
// request more than once.
func TestSigned_clockLearnt(t *testing.T) {
	t.Parallel()
	srv := sregistrytest.Start(t, sregistrytest.Options{NoLibrary: true, Clock: 2 * time.Hour})
	srv.AddCollection("mine", sregistrytest.User, false)
	b := opened(t, srv.URL, sregistrytest.User, sregistrytest.Token)
	for i, tag := range []string{"1", "2"} {
		_, err := b.Push(t.Context(), backends.Ref{Collection: "mine", Name: "i", Tag: tag}, backendtest.Source([]byte("content "+tag)))
		if err != nil {
			t.Fatal(err)
		}
		if sent, opened := srv.Count("POST /upload"), srv.Count("POST /api/upload/chunked_upload"); sent != i+1 || opened != i+2 {
			t.Errorf("push %d: %d images sent, %d announced", i+1, sent, opened)
		}
	}
}

// What Google Cloud Build has made is called "github/repo" in the collection "github/repo",
// and found as "github/repo:tag": it is repo in github, beside what is really there.
func TestBuilt(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{false, true} {
		srv := sregistrytest.Start(t, sregistrytest.Options{})
		for in, name := range map[string]string{"github/repo": "github/repo", "github/org/tool": "github/org/tool", "git": "x", "github/odd": "other"} {
			srv.Add(sregistrytest.Image{Collection: in, Name: name, Tag: "master", Content: []byte(in), Old: true})
		}
		if own {
			srv.Add(sregistrytest.Image{Collection: "github", Name: "own", Tag: "1", Content: []byte("own"), Old: true})
		}
		b := opened(t, srv.URL, sregistrytest.User, sregistrytest.Token)
		want := []string{"github/org/", "github/repo:master"}
		if own {
			want = []string{"github/org/", "github/own:1", "github/repo:master"}
			if got := backendtest.Names(t, b, ""); !slices.Equal(got, []string{"git/", "github/"}) {
				t.Errorf("the root: %q", got)
			}
		}
		if got := backendtest.Names(t, b, "github"); !slices.Equal(got, want) {
			t.Errorf("github: %q, want %q", got, want)
		}
		if got := backendtest.Names(t, b, "github/org"); !slices.Equal(got, []string{"github/org/tool:master"}) {
			t.Errorf("github/org: %q", got)
		}
		for name, content := range map[string]string{"github/repo:master": "github/repo", "github/org/tool:master": "github/org/tool"} {
			img := backendtest.Stat(t, b, name)
			if img.Ref.String() != name {
				t.Errorf("%s is called %s", name, img.Ref)
			}
			backendtest.WantRead(t, b, img, 0, -1, []byte(content))
			if err := b.Delete(t.Context(), img); err != nil {
				t.Errorf("Delete(%s): %v", name, err)
			}
		}
	}
}
