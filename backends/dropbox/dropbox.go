// SPDX-License-Identifier: Apache-2.0

// Package dropbox keeps images as files of a Dropbox, under the names that the
// sregistry client gives them:
//
//	/<collection…>/<image>:<tag>.sif
//
// Requests and answers are those of Dropbox's own SDK. What it lacks is here:
// headers in ASCII, limits on what a service may answer, one login for all
// hosts with its renewal (api.go, login.go), and uploads that go on after a
// restart (upload.go). It is no synchroniser: nothing is kept on this machine.
//
// Start at [Open].
package dropbox

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	sdk "github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox"
	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"
	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/sharing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend     = (*client)(nil)
	_ backends.Lister      = (*client)(nil)
	_ backends.Searcher    = (*client)(nil)
	_ backends.Pusher      = (*client)(nil)
	_ backends.Deleter     = (*client)(nil)
	_ backends.Copier      = (*client)(nil)
	_ backends.Sharer      = (*client)(nil)
	_ backends.Watcher     = (*client)(nil)
	_ backends.NameChecker = (*client)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for
// type = "dropbox".
type Config struct {
	// URL is scheme, host and port of what stands in for Dropbox: a proxy, a
	// test server. All requests go there. The default is Dropbox's own hosts.
	URL string `toml:"url"`
	// Root is the folder that holds the collections; the default is the whole
	// of what the login may see, which for most apps is their own folder.
	Root string `toml:"root"`
	// AppKey is the key of the Dropbox app by which to log in. A login that was
	// stored by StartLogin tells its own.
	AppKey string `toml:"app_key"`
}

type client struct {
	remote    string
	root      string // "" or "/…", as Dropbox wants paths
	appKey    string
	log       *slog.Logger
	http      *http.Client // through the gateway
	transport *transport

	files   files.ContextClient
	sharing sharing.ContextClient

	commits chan struct{}   // held by the one change under way: Dropbox refuses parallel ones in a namespace
	folders spellings       // of folders, which no listing of their content tells
	piece   int64           // bytes that one request of an upload session carries, a multiple of 4 MiB
	slots   slots           // for what is pushed
	unsaved uploads.Unsaved // uploads that were broken off
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "dropbox", Open: Open, Login: backends.LoginToken}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	home, err := parseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	root, err := parseRoot(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	c := &client{remote: env.Remote, root: root, appKey: cfg.AppKey, log: env.Logger(), commits: make(chan struct{}, 1), piece: pieceSize, slots: make(slots, inMemory)}
	c.transport = &transport{next: env.HTTP.Transport, home: home, tokens: newTokens(env, cfg.AppKey)}
	if c.transport.next == nil {
		c.transport.next = http.DefaultTransport
	}
	c.http = &http.Client{Transport: c.transport, CheckRedirect: refuseRedirect}
	c.transport.tokens.http = c.http
	// With Client set the SDK adds no login of its own: it would send one to
	// the route that must not have any, too.
	config := sdk.Config{Client: c.http, LogLevel: sdk.LogOff}
	c.files, c.sharing = files.NewContext(config), sharing.NewContext(config)
	return c, nil
}

// parseURL returns scheme and host; nil for "".
func parseURL(s string) (*url.URL, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // no stand-in is no error
	}
	u, err := httpx.Address(s, "/2")
	if err == nil && u.Path != "" {
		err = fmt.Errorf("%w: url %q has more than a host (a folder is said by root)", fs.ErrInvalid, backends.Redact(s))
	}
	return u, err
}

// parseRoot returns root with a slash before it and none behind.
func parseRoot(root string) (string, error) {
	root = strings.Trim(root, "/")
	if root == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(root, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\\\x00") {
			return "", fmt.Errorf("%w: root %q", fs.ErrInvalid, root)
		}
	}
	return "/" + root, nil
}
