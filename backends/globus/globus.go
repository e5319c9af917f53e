// SPDX-License-Identifier: Apache-2.0

// Package globus keeps images as files of Globus collections:
//
//	<root>/<collection…>/<image>:<tag>.sif
//
// Names, times and sizes come from the Transfer API (https://docs.globus.org/api/transfer), which
// also renames, makes folders and deletes; bytes are read from and written to the HTTPS server of
// a collection. It starts no transfers between collections, and so cannot read one that has no
// HTTPS server, as those of Globus Connect Personal.
//
// Start at [Open]; store.go is what package files asks for.
package globus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend        = (*client)(nil)
	_ backends.Lister         = (*client)(nil)
	_ backends.Pusher         = (*client)(nil)
	_ backends.Deleter        = (*client)(nil)
	_ backends.Mover          = (*client)(nil)
	_ backends.Sharer         = (*client)(nil)
	_ backends.EndpointFinder = (*client)(nil)
	_ backends.NameChecker    = (*client)(nil)
	_ backends.WebLogin       = (*client)(nil)
	_ backends.Knocker        = (*client)(nil)
	_ backends.LoginChecker   = (*client)(nil)
	_ backends.Addressed      = (*client)(nil)
)

// The hosts of the one service there is.
const (
	transferHost = "https://transfer.api.globus.org"
	authHost     = "https://auth.globus.org"
	transferAPI  = "/v0.10"
)

// Config is the [remotes.NAME] table of the configuration file for type = "globus".
type Config struct {
	// URL is scheme, host and port of what stands in for Globus's own hosts: a test server.
	URL string `toml:"url"`
	// Endpoint is the UUID of the collection. With several, with blanks between, or none, the first
	// part of a name is the collection's display name or UUID; with none it may be any.
	Endpoint string `toml:"endpoint"`
	// Root is the folder in each of them that holds the images; the default is "/".
	Root string `toml:"root"`
	// ClientID is the app by which to log in: see https://app.globus.org/settings/developers.
	ClientID string `toml:"client_id"`
	// DataAccess are the UUIDs of those that need consent to access data: mapped collections
	// that are not of high assurance.
	DataAccess string `toml:"data_access"`
	// Session is what collections want of the login: "domain:example.org", "identities:UUID",
	// "policies:UUID", "mfa", with commas between.
	Session string `toml:"session"`
}

type client struct {
	*files.Reader
	*files.Pusher
	*files.Mover

	remote     string
	transfer   *url.URL // its API
	auth       *url.URL
	endpoints  []string // UUIDs
	root       string   // "/…", perhaps "/~/…", without a slash at its end; "" for "/"
	clientID   string
	dataAccess []string
	session    session

	log    *slog.Logger
	http   *http.Client
	tokens *tokens
	poll   time.Duration // between the first two looks at a task
	page   int           // how much one listing tells at most

	found   bounded.Map[string, endpoint] // by UUID, and by the name that was looked for
	made    bounded.Map[string, string]   // the real path of a path with "~", by UUID and path
	unsaved uploads.Unsaved               // uploads that were broken off
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "globus", Open: Open}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	c := &client{remote: env.Remote, clientID: cfg.ClientID, log: env.Logger(), poll: firstPoll, page: listLimit}
	err := c.setHosts(cfg.URL)
	if err == nil {
		c.endpoints, err = parseIDs("endpoint", cfg.Endpoint)
	}
	if err == nil {
		c.dataAccess, err = parseIDs("data_access", cfg.DataAccess)
	}
	if err == nil {
		c.root, err = parseRoot(cfg.Root)
	}
	if err == nil {
		c.session, err = parseSession(cfg.Session)
	}
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	backends.AddHome(env.HTTP, c.transfer.String(), c.auth.String())
	next := env.HTTP.CheckRedirect
	c.http = &http.Client{Transport: env.HTTP.Transport, Jar: env.HTTP.Jar, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if strings.HasSuffix(req.URL.Path, authorizePath) {
			return http.ErrUseLastResponse // the answer says that a login is wanted
		}
		if next == nil {
			return nil
		}
		return next(req, via)
	}}
	c.tokens = newTokens(env, c)
	c.Reader = files.NewReader(store{c}, files.Layout{})
	c.Pusher = files.NewPusher(c.Reader, store{c})
	c.Mover = files.NewMover(c.Pusher, store{c})
	return c, nil
}

func (c *client) setHosts(standIn string) error {
	transfer, auth := transferHost, authHost
	if standIn != "" {
		transfer, auth = standIn, standIn
	}
	var err error
	if c.transfer, err = httpx.Address(transfer, transferAPI); err != nil {
		return err
	}
	if c.auth, err = httpx.Address(auth, transferAPI); err != nil {
		return err
	}
	if c.transfer.Path != "" {
		return fmt.Errorf("%w: url has more than a host (a folder is said by root)", fs.ErrInvalid)
	}
	return nil
}

// parseIDs reads a list of UUIDs.
func parseIDs(key, text string) ([]string, error) {
	ids := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return r == ' ' || r == ',' })
	for _, id := range ids {
		if !isID(id) {
			return nil, fmt.Errorf("%w: %s: %q is not the UUID of a collection (\"sreg search --endpoint\" finds it)", fs.ErrInvalid, key, id)
		}
	}
	return ids, nil
}

// isID reports whether s is a UUID in lower case.
func isID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// parseRoot returns the root with a slash before it and none behind.
func parseRoot(root string) (string, error) {
	trimmed := strings.Trim(root, "/")
	if trimmed == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(trimmed, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\r\n\x00") {
			return "", fmt.Errorf("%w: root %q", fs.ErrInvalid, root)
		}
	}
	return "/" + trimmed, nil
}

// single reports whether the remote is one collection, whose name is then no part of a path.
func (c *client) single() bool { return len(c.endpoints) == 1 }

// CheckName implements backends.NameChecker.
func (c *client) CheckName(ref backends.Ref) error {
	if !c.single() && ref.Collection == "" {
		return fmt.Errorf("%w: the first part of a name is the Globus collection", fs.ErrInvalid)
	}
	return c.Reader.CheckName(ref)
}

// Address implements backends.Addressed.
func (c *client) Address() string { return c.transfer.String() }

// Knock returns a request that Globus refuses without a login.
func (c *client) Knock() (method, address string) {
	return http.MethodGet, c.transfer.String() + transferAPI + "/submission_id"
}

// CheckLogin implements backends.LoginChecker.
func (c *client) CheckLogin(ctx context.Context) error {
	_, err := c.submissionID(ctx)
	return err
}

// Share implements backends.Sharer: it returns the address of the file, which everybody can
// open whom the permissions of the collection let.
//
// Errors: errors.ErrUnsupported if with is not empty.
func (c *client) Share(ctx context.Context, img backends.Image, with string) (string, error) {
	if with != "" {
		return "", fmt.Errorf("%w: who may read a Globus collection is said by its permissions, at https://app.globus.org: give %q some there, and send the link", errors.ErrUnsupported, with)
	}
	f, err := c.Locate(ctx, img)
	if err != nil {
		return "", err
	}
	p, err := c.resolve(ctx, f.Path)
	if err != nil {
		return "", err
	}
	u, err := c.address(ctx, p)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}
