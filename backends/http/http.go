// SPDX-License-Identifier: Apache-2.0

// Package http reads images from a folder on a plain web server: nginx, Apache,
// and whatever else shows a folder as a page of links. It only reads.
//
// It is no WebDAV and no API of anybody's: the files are had by GET and HEAD, their
// names from the page, their digests from a SHA256SUMS beside them. Nothing that a
// page says of sizes and times is believed.
//
// Begin with name.go (how files map to names), index.go (what is read of a page)
// and version.go (how a change is noticed). Package net/http is called nethttp
// here.
package http

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	nethttp "net/http"
	"net/url"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

var (
	_ backends.Backend = (*client)(nil)
	_ backends.Lister  = (*client)(nil)
)

// Config is the [remotes.NAME] section of the configuration file for
// type = "http".
type Config struct {
	// URL is the address of the folder; required.
	URL string `toml:"url"`
	// Sums is the name of the file with the SHA-256 digests of the files beside
	// it, "SHA256SUMS" if it is not set. "" looks for none.
	Sums string `toml:"sums"`
	// Extensions says which files count as images besides the usual ones.
	Extensions backends.Extensions `toml:"extensions"`
}

type client struct {
	home    *url.URL // ends in a slash
	user    string
	secret  backends.SecretFunc
	renewal httpx.Renewal
	http    *nethttp.Client
	log     *slog.Logger

	naming    naming
	sums      sums
	first     bounded.Map[string, string]   // of folders, by address: the format that is looked for first
	locations bounded.Map[string, location] // of names that were not where they are looked for first
	versions  bounded.Map[string, string]   // what the server calls the version of a file whose digest is known
	noHead    atomic.Bool                   // the server answers no HEAD
	// The server's ETag was last seen to be another than nginx makes of a file's time
	// and size.
	ownTags atomic.Bool
	heads   atomic.Bool // it has answered one
}

// depot is the largest public folder of images, which needs no configuration.
const depot = "depot.galaxyproject.org"

// Type is the backend in the table of backends/all.
var Type = backends.Type{
	Name: "http", Open: Open, HostSchemes: []string{"https"}, Folders: true, OwnHost: func(host string) bool { return host == depot },
}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	cfg := Config{Sums: "SHA256SUMS"}
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	home, err := httpx.Address(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	home = home.JoinPath("/")
	if cfg.Sums != "" && !isPlain(cfg.Sums) {
		return nil, fmt.Errorf("%w: remote %s: sums = %q is no file name", fs.ErrInvalid, env.Remote, cfg.Sums)
	}
	if err := cfg.Extensions.Check(); err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	return &client{
		naming: naming{cfg.Extensions, cfg.Sums},
		home:   home, user: env.User, secret: env.Secret, http: env.HTTP, log: env.Logger(), sums: sums{name: cfg.Sums},
	}, nil
}

// do sends a request to an address of the server, with the login; once more with a newer
// one if that is refused and there is one. Errors: those of httpx.Do.
func (c *client) do(ctx context.Context, method, address string, prepare func(*nethttp.Request), ok ...int) (*nethttp.Response, error) {
	token := ""
	send := func() (*nethttp.Response, error) {
		req, err := nethttp.NewRequestWithContext(ctx, method, address, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
		}
		if prepare != nil {
			prepare(req)
		}
		switch {
		case token == "":
		case c.user != "":
			req.SetBasicAuth(c.user, token)
		default:
			req.Header.Set("Authorization", "Bearer "+token)
		}
		return httpx.Do(c.http, req, ok...)
	}
	if c.secret == nil {
		return send()
	}
	var err error
	if token, err = c.secret(ctx, false); err != nil {
		return nil, err
	}
	resp, err := send()
	if next, ok := c.renewal.Again(ctx, c.secret, token, err); ok {
		token = next
		return send()
	}
	return resp, err
}
