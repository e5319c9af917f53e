// SPDX-License-Identifier: Apache-2.0

// Package sregistry reads and writes images in a Singularity Registry Server
// (https://github.com/singularityhub/sregistry), as the sregistry client and
// "singularity push library://" do.
//
// Such a server keeps images in two stores. What came by the old upload lies
// behind the server itself: no ranges, no size beforehand, and each download
// counts against a weekly quota. What came by the library API lies in an object
// store: presigned URLs, ranges, exact sizes. Which store an image is in shows
// only when it is asked for. The views of the server are limited too, by default
// to some dozens of requests a day, so nothing here asks twice for what it knows.
//
// It is no client of library.sylabs.io, whose API has other parts.
//
// Begin with name.go (how names map), sign.go (how requests are signed) and
// open.go (which store). api.go has the requests below the rest.
package sregistry

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend     = (*client)(nil)
	_ backends.Lister      = (*client)(nil)
	_ backends.Searcher    = (*client)(nil)
	_ backends.Pusher      = (*client)(nil)
	_ backends.Deleter     = (*client)(nil)
	_ backends.NameChecker = (*client)(nil)
	_ backends.Speller     = (*client)(nil)
)

// Config is the [remotes.NAME] section of the configuration file for
// type = "sregistry".
type Config struct {
	// URL is the address of the server, with or without "/api" behind it.
	URL string `toml:"url"`
	// PushBy says by which way images are sent: "library" (the object store),
	// "upload" (the server's own disk), or "auto", the default: the library
	// where the server has it.
	PushBy string `toml:"push_by"`
	// NewCollections says who may see the collections that a push makes:
	// "private", the default, or "public".
	NewCollections string `toml:"new_collections"`
}

// The values of Config.NewCollections.
const (
	newPrivate = "private"
	newPublic  = "public"
)

// The values of Config.PushBy.
const (
	pushAuto    = "auto"
	pushLibrary = "library"
	pushUpload  = "upload"
)

type client struct {
	home    *url.URL // without "/api" and the last slash
	arch    string
	way     string // of Config.PushBy
	private bool   // new collections are
	login   *login
	http    *http.Client
	log     *slog.Logger
	clock   clock

	locations  locations                     // where the bytes of images are
	signedOnly bounded.Map[string, struct{}] // collections that are read only signed
	refusals   refusals                      // images that are not for the login
	listing    listing                       // of all public collections, for a moment
	facts      facts                         // of all public containers, for a moment
	perPage    atomic.Int64                  // how many things the server gives on a page that is not the last; 0 if there was none
	commits    backends.Locks                // one publication of a name at a time
	unsaved    uploads.Unsaved               // the uploads that were broken off
	partSize   int64                         // above which an upload is cut into parts
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{
	Name: "sregistry", Open: Open, Needs: "url", Login: backends.LoginUser,
	Schemes: []string{"registry"}, HostSchemes: []string{"registry"}, DottedNames: true,
}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	cfg := Config{PushBy: pushAuto, NewCollections: newPrivate}
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	home, err := parseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	for _, s := range []struct {
		key, value string
		known      []string
	}{{"push_by", cfg.PushBy, []string{pushAuto, pushLibrary, pushUpload}}, {"new_collections", cfg.NewCollections, []string{newPrivate, newPublic}}} {
		if !slices.Contains(s.known, s.value) {
			return nil, fmt.Errorf("%w: remote %s: %s = %q%s", fs.ErrInvalid, env.Remote, s.key, s.value, backends.DidYouMean(s.value, s.known))
		}
	}
	// Such a name cannot log in anywhere: the server splits what it is sent at
	// each slash.
	if strings.Contains(encodeUser(env.User), "/") {
		return nil, fmt.Errorf("%w: remote %s: the server cannot read the user name %q in a signature", fs.ErrInvalid, env.Remote, env.User)
	}
	return &client{
		home: home, arch: env.WantedArch(), way: cfg.PushBy, private: cfg.NewCollections == newPrivate, http: env.HTTP, log: env.Logger(),
		login: &login{user: env.User, secret: env.Secret}, partSize: bigUpload,
	}, nil
}

// parseURL returns the address of a server without what the sregistry client
// lets stand behind it.
func parseURL(s string) (*url.URL, error) {
	return httpx.Address(s, "/api", "/v1")
}
