// SPDX-License-Identifier: Apache-2.0

package swifttest

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// How the rings place things, which [Account.Fill] has to know.
const (
	hashSuffix = "test"
	partPower  = 2
)

// An Account is one that nobody else uses.
type Account struct {
	User    string // whose it is; the password is Key. Another user of it is Other
	Other   string
	Guest   string // a user of it who may only do what containers allow
	Storage string // its address
	Auth    string // where to log in, as in Server

	name       string
	server     *Server
	containers sync.Map // that Put has made
}

// Account returns an account that nothing is in.
func (s *Server) Account() *Account {
	n := s.next.Add(1) - 1
	if n >= accounts {
		panic("swifttest: all accounts are used")
	}
	id := fmt.Sprintf("a%d", n)
	return &Account{
		User: id + ":me", Other: id + ":you", Guest: id + ":guest", name: "AUTH_" + id,
		Storage: s.URL + "/v1/AUTH_" + id, Auth: s.Auth, server: s,
	}
}

// Token returns a token of a user.
func (s *Server) Token(t testing.TB, name string) string {
	t.Helper()
	token, err := s.login(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Tokens returns those of two users who may do everything in all accounts.
func (s *Server) Tokens(t testing.TB) [2]string {
	t.Helper()
	return [2]string{s.Token(t, "root:one"), s.Token(t, "root:two")}
}

// Forget has the server forget all tokens that it gave out, as after the time of their life.
func (s *Server) Forget(t testing.TB) {
	t.Helper()
	s.tokens.Clear()
	var d dialer
	if err := d.flush("127.0.0.1:" + s.ports["memcached"]); err != nil {
		t.Fatal(err)
	}
}

// Do sends a request as the account's user, about a path in it ("/c/o?x=y"), and fails the test
// if it is refused.
func (a *Account) Do(t testing.TB, method, path string, h http.Header, body []byte) http.Header {
	t.Helper()
	got, err := a.Try(context.WithoutCancel(t.Context()), method, path, h, body)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Try is Do that returns the error.
func (a *Account) Try(ctx context.Context, method, path string, h http.Header, body []byte) (http.Header, error) {
	token, err := a.server.login(ctx, a.User)
	if err != nil {
		return nil, err
	}
	return a.server.do(ctx, method, a.Storage+path, token, h, body)
}

// Put stores an object, and makes its container.
func (a *Account) Put(t testing.TB, path string, content []byte, h http.Header) {
	t.Helper()
	container, name, _ := strings.Cut(path, "/")
	if _, made := a.containers.Load(container); !made {
		a.Do(t, http.MethodPut, "/"+url.PathEscape(container), nil, nil)
		a.containers.Store(container, true)
	}
	h = maps.Clone(h)
	if h == nil {
		h = http.Header{}
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/octet-stream")
	}
	a.Do(t, http.MethodPut, "/"+url.PathEscape(container)+"/"+url.PathEscape(name), h, content)
}

// Fill makes a container whose listing has objects of these names, without any bytes: thousands
// are there at once.
func (a *Account) Fill(t testing.TB, container string, names []string) {
	t.Helper()
	a.Do(t, http.MethodPut, "/"+url.PathEscape(container), nil, nil)
	now := fmt.Sprintf("%d.00000", time.Now().Unix())
	type item struct {
		Name        string `json:"name"`
		CreatedAt   string `json:"created_at"`
		Size        int64  `json:"size"`
		ContentType string `json:"content_type"`
		ETag        string `json:"etag"`
		Deleted     int    `json:"deleted"`
		Policy      int    `json:"storage_policy_index"`
	}
	items := make([]item, len(names))
	for i, name := range names {
		items[i] = item{name, now, 1000, "application/octet-stream", fmt.Sprintf("%x", md5.Sum([]byte(name))), 0, 0}
	}
	text, err := json.Marshal(items)
	if err != nil {
		t.Fatal(err)
	}
	sum := md5.Sum([]byte("/" + a.name + "/" + container + hashSuffix))
	part := binary.BigEndian.Uint32(sum[:]) >> (32 - partPower)
	address := fmt.Sprintf("http://127.0.0.1:%s/d1/%d/%s/%s", a.server.ports["container"], part, a.name, url.PathEscape(container))
	h := http.Header{"X-Timestamp": {now}, "X-Backend-Storage-Policy-Index": {"0"}}
	if _, err := a.server.do(t.Context(), "UPDATE", address, "", h, text); err != nil {
		t.Fatal(err)
	}
}

// Names returns the objects of a container, "" for the containers; nil if there is none.
func (a *Account) Names(t testing.TB, container string) []string {
	t.Helper()
	path := ""
	if container != "" {
		path = "/" + url.PathEscape(container)
	}
	text, err := a.get(t, path)
	if err != nil || text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
