// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
)

// login opens the backend with a login of its own; n counts how often it was
// asked for, and how often for a fresh one.
func login(t *testing.T, srv *dropboxtest.Server, secret func(fresh bool) string, config map[string]any) (_ *client, asked, fresh *atomic.Int64) {
	t.Helper()
	asked, fresh = new(atomic.Int64), new(atomic.Int64)
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	if config == nil {
		config = map[string]any{}
	}
	config["url"] = srv.URL
	env := backends.Env{Remote: "box", HTTP: hc, Config: config}
	if secret != nil {
		env.Secret = func(_ context.Context, again bool) (string, error) {
			asked.Add(1)
			if again {
				fresh.Add(1)
			}
			return secret(again), nil
		}
	}
	b, err := Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	return b.(*client), asked, fresh
}

func seeded(t *testing.T) *dropboxtest.Server {
	t.Helper()
	srv := dropboxtest.Start(t, dropboxtest.Options{})
	srv.Put("/v/x:1.sif", []byte("x"), noon)
	return srv
}

func fixed(secret string) func(bool) string { return func(bool) string { return secret } }

func stat(t *testing.T, c *client) error {
	t.Helper()
	_, err := c.Stat(t.Context(), mustRef(t, "v/x:1"))
	return err
}

func TestLogin_none(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	c, _, _ := login(t, srv, nil, nil)
	if err := stat(t, c); !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "sreg login box") {
		t.Errorf("%v", err)
	}
	if srv.Requests() != 0 {
		t.Errorf("%d requests without a login", srv.Requests())
	}
}

// A refresh token gives access tokens for as long as it is good; one refresh
// serves all who wait.
func TestLogin_refresh(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	c, asked, _ := login(t, srv, fixed(`{"refresh_token": "`+dropboxtest.RefreshToken+`", "app_key": "app"}`), nil)
	for round := range 3 {
		before := srv.Count("/oauth2/token")
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := stat(t, c); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		wg.Wait()
		if n := srv.Count("/oauth2/token") - before; n != 1 {
			t.Errorf("round %d: %d refreshes", round, n)
		}
		srv.Expire()
	}
	if asked.Load() != 1 {
		t.Errorf("the secret was asked for %d times", asked.Load())
	}
}

// A refresh token is in a form, and no more for everybody on the way than an access token.
func TestLogin_plain(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"refresh": `{"refresh_token": "r", "app_key": "app"}`, "access": "token"} {
		hc := backends.NewHTTPClient(backends.HTTPOptions{})
		t.Cleanup(hc.CloseIdleConnections)
		b, err := Open(t.Context(), backends.Env{
			Remote: "box", HTTP: hc, Config: map[string]any{"url": "http://dropbox.invalid"},
			Secret: func(context.Context, bool) (string, error) { return text, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := stat(t, b.(*client)); !errors.Is(err, backends.ErrNotAllowed) || !strings.Contains(err.Error(), "plain_login") {
			t.Errorf("%s token over plain http: %v", name, err)
		}
	}
}

// A login as Dropbox's token route answers it: with an access token that is
// good for a while, and no key.
func TestLogin_asAnswered(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	text := `{"access_token": "` + dropboxtest.Token + `", "token_type": "bearer", "expires_in": 14400, "refresh_token": "` + dropboxtest.RefreshToken + `", "uid": "1"}`
	c, asked, _ := login(t, srv, fixed(text), map[string]any{"app_key": "app"})
	for range 2 {
		if err := stat(t, c); err != nil {
			t.Error(err)
		}
		srv.Expire()
	}
	if asked.Load() != 1 || srv.Count("/oauth2/token") != 1 {
		t.Errorf("asked %d times, %d refreshes", asked.Load(), srv.Count("/oauth2/token"))
	}
}

// The body of a request is sent again after a refresh.
func TestLogin_replay(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	c, _, _ := login(t, srv, fixed(`{"refresh_token": "`+dropboxtest.RefreshToken+`"}`), map[string]any{"app_key": "app"})
	text := big(9)
	var count atomic.Int64
	srv.SetHook(func(route string, _ http.ResponseWriter, _ *http.Request) bool {
		if strings.HasPrefix(route, "files/upload_session/append") && count.Add(1) == 2 {
			srv.Expire()
		}
		return false
	})
	if _, err := c.Push(t.Context(), mustRef(t, "v/big:1"), source(text)); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, c, mustRef(t, "v/big:1"), text)
	srv.Expire()
	if _, err := c.Push(t.Context(), mustRef(t, "v/small:1"), source(text[:100])); err != nil {
		t.Fatal(err)
	}
}

// An access token alone is asked for anew once it is refused; a file that was
// changed meanwhile has another.
func TestLogin_renewed(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	c, asked, fresh := login(t, srv, func(again bool) string {
		if again {
			srv.Accept("sl.second")
			return " sl.second\n"
		}
		return dropboxtest.Token
	}, nil)
	if err := stat(t, c); err != nil {
		t.Fatal(err)
	}
	srv.Expire()
	if err := stat(t, c); err != nil {
		t.Errorf("after the token expired: %v", err)
	}
	if asked.Load() != 2 || fresh.Load() != 1 {
		t.Errorf("asked %d times, %d for a fresh one", asked.Load(), fresh.Load())
	}
}

// A wrong token is refused without a storm.
func TestLogin_wrong(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	for name, secret := range map[string]string{
		"token":         "sl.wrong",
		"refresh token": `{"refresh_token": "hunter2", "app_key": "app"}`,
		"app":           `{"refresh_token": "` + dropboxtest.RefreshToken + `", "app_key": "hunter2"}`,
		"no app":        `{"refresh_token": "hunter2"}`,
		"no JSON":       `{"refresh_token": hunter2}`,
		"nothing":       ` `,
		"empty":         `{}`,
		"two lines":     "hunter2\nhunter2",
	} {
		c, asked, _ := login(t, srv, fixed(secret), nil)
		for range 5 {
			if err := stat(t, c); !errors.Is(err, backends.ErrUnauthorized) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := asked.Load(); n > 7 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
	if n := srv.Requests(); n > 30 {
		t.Errorf("%d requests", n)
	}
}

func TestLogin_scope(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	c, asked, _ := login(t, srv, fixed(dropboxtest.Token), nil)
	srv.SetHook(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		return dropboxtest.Refuse(w, 401, `{"error_summary": "missing_scope/..", "error": {".tag": "missing_scope", "required_scope": "files.metadata.read"}}`)
	})
	if err := stat(t, c); !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "files.metadata.read") || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
}

// Somebody logs in: page, code, and a secret that works.
func TestStartLogin(t *testing.T) {
	t.Parallel()
	srv := seeded(t)
	c, _, _ := login(t, srv, nil, map[string]any{"app_key": "app"})
	page, exchange, err := c.StartLogin()
	if err != nil || !strings.HasPrefix(page, srv.URL+"/oauth2/authorize?") {
		t.Fatalf("%q, %v", page, err)
	}
	code, err := srv.Authorize(page)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(t.Context(), "wrong"); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("a wrong code: %v", err)
	}
	secret, err := exchange(t.Context(), code+"\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(t.Context(), code); !errors.Is(err, backends.ErrUnauthorized) {
		t.Errorf("a code used twice: %v", err)
	}
	c, _, _ = login(t, srv, fixed(secret), nil)
	if err := stat(t, c); err != nil {
		t.Errorf("with the secret: %v", err)
	}
	if _, _, err := c.StartLogin(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("without app_key: %v", err)
	}
}

// The token does not leave for another host.
func TestRedirect(t *testing.T) {
	t.Parallel()
	var thief atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { thief.Add(1) }))
	t.Cleanup(other.Close)
	srv, c := serve(t, dropboxtest.Options{})
	for _, status := range []int{301, 302, 303, 307, 308} {
		srv.SetHook(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Location", other.URL)
			return dropboxtest.Refuse(w, status, "")
		})
		if err := stat(t, c); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("HTTP %d: %v", status, err)
		}
	}
	if thief.Load() != 0 {
		t.Errorf("%d requests reached the other host", thief.Load())
	}
}

func TestOpen_settings(t *testing.T) {
	t.Parallel()
	for _, config := range []map[string]any{
		{"url": "ftp://x"}, {"url": "https://me:secret@x"}, {"url": "https://x/path"}, {"url": "https:x"}, {"root": "a/../b"}, {"root": `a\b`},
		{"rot": "x"}, {"root": 1},
	} {
		if _, err := Open(t.Context(), backends.Env{Remote: "box", HTTP: http.DefaultClient, Config: config}); !errors.Is(err, fs.ErrInvalid) || strings.Contains(err.Error(), "secret") { //nolint:forbidigo // not used
			t.Errorf("%v: %v", config, err)
		}
	}
	// The hosts are Dropbox's own unless something stands in.
	var hosts []string
	hc := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		hosts = append(hosts, r.URL.Scheme+"://"+r.URL.Host)
		return nil, errors.New("no network")
	})}
	b, err := Open(t.Context(), backends.Env{Remote: "box", HTTP: hc, Secret: token})
	if err != nil {
		t.Fatal(err)
	}
	c := b.(*client)
	if err := stat(t, c); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
	_, _ = c.Open(t.Context(), backends.Image{Version: "0123456789", Size: 1}, 0, -1)
	_, _ = c.poll(t.Context(), "x")
	if got := fmt.Sprint(hosts); got != "[https://api.dropboxapi.com https://content.dropboxapi.com https://notify.dropboxapi.com]" {
		t.Errorf("hosts %s", got)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
