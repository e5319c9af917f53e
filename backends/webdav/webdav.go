// SPDX-License-Identifier: Apache-2.0

// Package webdav keeps images on a WebDAV server (RFC 4918): Nextcloud, ownCloud, Apache's
// mod_dav, "rclone serve webdav".
//
// It is the protocol only: which path an image has is in package files. Begin with props.go
// (how files are listed), then stage.go (how bytes get to the server) and publish.go (how they
// get their name).
package webdav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend      = (*client)(nil)
	_ backends.Lister       = (*client)(nil)
	_ backends.Pusher       = (*client)(nil)
	_ backends.Deleter      = (*client)(nil)
	_ backends.Tagger       = (*client)(nil)
	_ backends.Copier       = (*client)(nil)
	_ backends.Mover        = (*client)(nil)
	_ backends.Knocker      = (*client)(nil)
	_ backends.LoginChecker = (*client)(nil)
	_ backends.Addressed    = (*client)(nil)

	_ files.Duplicator = (*store)(nil)
	_ files.Renamer    = (*store)(nil)
)

// Config is the [remotes.NAME] section of the configuration file for
// type = "webdav".
type Config struct {
	// URL is the address of the folder with the images; required.
	URL string `toml:"url"`
	// Chunked says that large files go to Nextcloud or ownCloud in chunks; default true.
	Chunked bool `toml:"chunked"`
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "webdav", Open: Open, Needs: "url"}

type client struct {
	*files.Reader
	*files.Pusher
	*files.Copier
	*files.Mover
	store *store
}

// A store is one folder of a server and what is below it.
type store struct {
	home    *url.URL // no slash at the end
	user    string
	secret  backends.SecretFunc
	renewal httpx.Renewal
	http    *http.Client
	log     *slog.Logger
	unsaved uploads.Unsaved // pushes that were broken off
	chunks  string          // address of the folder for chunked uploads; "" if the server has none
	chunk   int64           // bytes of a chunk, at least

	// What the server has been seen not to do.
	noLocks  atomic.Bool // LOCK
	noTags   atomic.Bool // compare an ETag in an If header
	noProps  atomic.Bool // keep a property of ours
	noChunks atomic.Bool // take chunks

	proving sync.Mutex // guards the field below, and is held while the server is tried
	proof   proof

	mu        sync.Mutex              // guards the field below
	leftovers map[string][]files.File // of pushes that ended long ago, by folder
}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	cfg := Config{Chunked: true}
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	home, err := httpx.Address(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	s := &store{home: home, user: env.User, secret: env.Secret, http: env.HTTP, log: env.Logger(), chunk: chunkSize, leftovers: map[string][]files.File{}}
	if cfg.Chunked {
		s.chunks = chunkFolder(home)
	}
	r := files.NewReader(s, files.Layout{})
	p := files.NewPusher(r, s)
	return newCloud(&client{Reader: r, Pusher: p, Copier: files.NewCopier(p, s), Mover: files.NewMover(p, s), store: s}), nil
}

// Address implements backends.Addressed.
func (c *client) Address() string { return c.store.home.String() }

// Knock returns a request that every server answers.
func (c *client) Knock() (method, address string) { return http.MethodOptions, c.store.folder("") }

// CheckLogin asks for the folder of the remote, which need not be there yet.
//
// Errors: those of backends.Backend.Stat.
func (c *client) CheckLogin(ctx context.Context) error {
	_, err := c.store.properties(ctx, c.store.folder(""), "0", func(response) error { return nil })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// address returns the URL of a path.
func (s *store) address(path string) string {
	if path == "" {
		return s.home.String()
	}
	parts := strings.Split(path, "/")
	for i, part := range parts {
		parts[i] = escapeSegment(part)
	}
	return s.home.String() + "/" + strings.Join(parts, "/")
}

// escapeSegment is url.PathEscape, and ":" too: some servers take what is before it for a scheme.
func escapeSegment(part string) string { return strings.ReplaceAll(url.PathEscape(part), ":", "%3A") }

// folder returns the URL of a folder: with its slash, no server sends elsewhere.
func (s *store) folder(path string) string { return s.address(path) + "/" }

// A question is a request that can be sent again.
type question struct {
	method, address string
	header          http.Header
	body            func() io.Reader // nil for none
	size            int64            // of the body
}

// do sends a request with the login; once more with a newer one if that is refused and there
// is one. Errors: those of httpx.Do; a resource that somebody has locked is
// backends.ErrUnavailable.
func (s *store) do(ctx context.Context, q question, ok ...int) (*http.Response, error) {
	token := ""
	send := func() (*http.Response, error) {
		req, err := q.request(ctx)
		if err != nil {
			return nil, err
		}
		switch {
		case token == "":
		case s.user != "":
			req.SetBasicAuth(s.user, token)
		default:
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := httpx.Do(s.http, req, append(ok, http.StatusLocked)...)
		if err == nil && resp.StatusCode == http.StatusLocked {
			resp.Body.Close()
			return nil, fmt.Errorf("%w: another program has locked the file", backends.ErrUnavailable)
		}
		return resp, err
	}
	if s.secret == nil {
		return send()
	}
	var err error
	if token, err = s.secret(ctx, false); err != nil {
		return nil, err
	}
	resp, err := send()
	if next, ok := s.renewal.Again(ctx, s.secret, token, err); ok {
		token = next
		resp, err = send()
	}
	if errors.Is(err, backends.ErrUnauthorized) && strings.Contains(s.home.Path, "/remote.php/") {
		err = fmt.Errorf("%w (with two-factor authentication only an app password is taken: make one on the server's page Personal settings, Security)", err)
	}
	return resp, err
}

func (q question) request(ctx context.Context) (*http.Request, error) {
	var body io.Reader
	if q.body != nil && q.size > 0 {
		body = q.body()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, q.address, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	if q.header != nil {
		req.Header = q.header.Clone()
	}
	if body != nil {
		req.ContentLength = q.size
	}
	return req, nil
}

// send is do for a request whose answer says nothing but its status, which must be one of want.
//
// Errors: those of do; backends.ErrBadAnswer for another success (207: a part of it failed).
func (s *store) send(ctx context.Context, q question, want ...int) error {
	resp, err := s.do(ctx, q)
	if err != nil {
		return err
	}
	resp.Body.Close()
	for _, status := range want {
		if resp.StatusCode == status {
			return nil
		}
	}
	return fmt.Errorf("%w: status %d for %s", backends.ErrBadAnswer, resp.StatusCode, q.method)
}
