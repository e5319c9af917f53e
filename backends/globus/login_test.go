// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/globus/globustest"
)

func envOf(config map[string]any) backends.Env {
	return backends.Env{Remote: "r", HTTP: &http.Client{}, Config: config}
}

// personal is the login that sregistry has stored of a person.
func personal(srv *globustest.Server) backends.SecretFunc {
	return func(context.Context, bool) (string, error) {
		return `{"resource_server": "` + transferServer + `", "refresh_token": "` + srv.RefreshToken(sregistryClient) + `", "access_token": "old", "expires_at_seconds": 1}`, nil
	}
}

// A person logs in by the page; the login has a token for each service, gets new ones when they
// have lapsed, and is as the collection wants it.
func TestLogin_web(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{DataAccess: true, Domain: "example.org"})
	srv.Put(id, "/c/a:1.sif", []byte("abc"), time.Now())
	config := map[string]any{"endpoint": id, "data_access": id, "client_id": globustest.NativeApp, "session": "domain:example.org"}
	page, exchange, err := openAs(t, srv, nil, config, "", nil).StartLogin()
	if err != nil {
		t.Fatal(err)
	}
	code, err := srv.Authorize(page)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(t.Context(), "wrong"); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("a wrong code: %v, want ErrUnauthorized", err)
	}
	stored, err := exchange(t.Context(), " "+code+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(t.Context(), code); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("the code again: %v, want ErrUnauthorized", err)
	}
	c := openAs(t, srv, nil, config, "", func(context.Context, bool) (string, error) { return stored, nil })
	read := func() error {
		img, err := c.Reader.Stat(t.Context(), backends.Ref{Collection: "c", Name: "a", Tag: "1"})
		if err != nil {
			return err
		}
		body, err := c.Reader.Open(t.Context(), img, 0, -1)
		if err != nil {
			return err
		}
		defer body.Close()
		_, err = io.Copy(io.Discard, body)
		return err
	}
	if err := errors.Join(c.CheckLogin(t.Context()), read()); err != nil {
		t.Error(err)
	}
	srv.Lapse()
	if err := read(); err != nil {
		t.Errorf("after the access tokens lapsed: %v", err)
	}
	srv.Expire()
	err = read()
	if !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), `run "sreg login conformance"`) {
		t.Errorf("after all expired: %v, want ErrUnauthorized and what to do", err)
	}
	for _, hidden := range []string{stored[len(stored)-20:], code} {
		if strings.Contains(err.Error(), hidden) {
			t.Errorf("a secret is told: %v", err)
		}
	}
}

func TestLogin_kinds(t *testing.T) {
	t.Parallel()
	srv := globustest.Start(t, globustest.Options{})
	id := srv.Add(globustest.Collection{})
	config := map[string]any{"endpoint": id}
	if _, _, err := openAs(t, srv, nil, config, "", nil).StartLogin(); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "client_id") {
		t.Errorf("no client_id: %v", err)
	}
	if _, _, err := open(t, srv, nil, config, secret).StartLogin(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an app by a page: %v", err)
	}
	if err := openAs(t, srv, nil, config, "", nil).CheckLogin(t.Context()); !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "sreg login") {
		t.Errorf("none: %v", err)
	}
	for name, test := range map[string]struct {
		user string
		ask  backends.SecretFunc
		is   error
		says string
	}{
		"an app":         {globustest.App, secret, nil, ""},
		"a wrong app":    {"sregfs-nobody", secret, backends.ErrUnauthorized, "--user sregfs-nobody --token-stdin"},
		"of sregistry":   {"", personal(srv), nil, ""},
		"a token":        {"", func(context.Context, bool) (string, error) { return "AgNone", nil }, backends.ErrUnauthorized, "sreg login"},
		"no JSON":        {"", func(context.Context, bool) (string, error) { return "{x", nil }, backends.ErrUnauthorized, "sreg login"},
		"JSON of others": {"", func(context.Context, bool) (string, error) { return `{"a": 1}`, nil }, backends.ErrUnauthorized, "sreg login"},
		"no line":        {"", func(context.Context, bool) (string, error) { return "a b", nil }, backends.ErrUnauthorized, "sreg login"},
	} {
		err := openAs(t, srv, nil, config, test.user, test.ask).CheckLogin(t.Context())
		if !errors.Is(err, test.is) || test.is != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %v with %q", name, err, test.is, test.says)
		}
	}
}
