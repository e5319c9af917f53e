// SPDX-License-Identifier: Apache-2.0

// Package library reads and writes images in the Sylabs container library and in
// servers that speak its protocol (Singularity Enterprise, Hinkskalle), as
// "singularity pull library://" and "singularity push library://" do.
//
// A library tells what an image is, and where its bytes are: in an OCI registry
// behind it, for which it hands out a token ("oci-redirect"), in an object store,
// to which it redirects, or in itself. What comes and goes through the OCI registry
// is left to the opener of that backend which [Opener] is given.
//
// It has no list of everything. The root holds the entities that the configuration
// names and those of the token's user.
//
// Begin with name.go (how names map), address.go (where the library is) and read.go
// (where the bytes are).
package library

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend     = (*client)(nil)
	_ backends.Lister      = (*client)(nil)
	_ backends.Searcher    = (*client)(nil)
	_ backends.Pusher      = (*client)(nil)
	_ backends.Deleter     = (*client)(nil)
	_ backends.Tagger      = (*client)(nil)
	_ backends.NameChecker = (*client)(nil)
	_ backends.Layered     = (*client)(nil)

	_ backends.ArchiveLister = (*client)(nil)
)

// Config is the [remotes.NAME] section of the configuration file for
// type = "library".
type Config struct {
	// URL is the address of the library, or of an endpoint that names it. The
	// default is the active remote of "singularity remote list", or the Sylabs
	// library.
	URL string `toml:"url"`
	// Entities are shown at the root besides those of the token's user. The
	// default at Sylabs is "library", where the public images are.
	Entities []string `toml:"entities"`
	// PushBy says by which way images are sent: one of the values below.
	PushBy string `toml:"push_by"`
	// Show is as what container images are shown that are in the OCI registry behind the
	// library: one of backends.Shows. The default is the first of them.
	Show string `toml:"show"`
}

// The values of Config.PushBy. "auto" is the OCI registry where the library has
// one, else the best way of those that its version has.
const (
	pushAuto      = "auto"
	pushOCI       = "oci"
	pushMultipart = "multipart"
	pushSingle    = "single"
	pushRaw       = "raw"
)

var ways = []string{pushAuto, pushOCI, pushMultipart, pushSingle, pushRaw}

// bigUpload is the size above which an image is sent in parts, as
// "singularity push" has it.
const bigUpload = 64 << 20

type client struct {
	address  address
	entities []string
	arch     string
	way      string // of Config.PushBy
	show     string // of Config.Show
	cache    string // directory for what the registries remember; "" if there is none
	login    *login
	http     *http.Client
	log      *slog.Logger
	asked    atomic.Pointer[http.Request] // the last request that the library answered

	registries registries      // the OCI registries behind the library
	links      links           // presigned addresses of the bytes of images
	listing    listing         // what was listed a moment ago
	commits    backends.Locks  // one publication of a name at a time
	unsaved    uploads.Unsaved // the uploads that were broken off
	partSize   int64           // above which an upload is cut into parts
}

// Type returns the backend in the table of backends/all, see Opener.
func Type(oci backends.Opener) backends.Type {
	return backends.Type{Name: "library", Open: Opener(oci), Schemes: []string{"library"}, Hosts: []string{sylabsLibrary, sylabsEndpoint}}
}

// Opener returns the opener of this backend. oci is that of the
// backend for the OCI registry behind a library.
//
// Its errors: fs.ErrInvalid for settings that cannot be.
func Opener(oci backends.Opener) backends.Opener {
	return func(_ context.Context, env backends.Env) (backends.Backend, error) {
		cfg := Config{PushBy: pushAuto}
		if err := env.Decode(&cfg); err != nil {
			return nil, err
		}
		c, err := newClient(env, cfg)
		if err != nil {
			return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
		}
		c.registries.open = oci
		return c, nil
	}
}

func newClient(env backends.Env, cfg Config) (*client, error) {
	if !slices.Contains(ways, cfg.PushBy) {
		return nil, fmt.Errorf("%w: push_by = %q%s", fs.ErrInvalid, cfg.PushBy, backends.DidYouMean(cfg.PushBy, ways))
	}
	if err := backends.CheckShow(cfg.Show); err != nil {
		return nil, err
	}
	files := remoteFiles{home: env.Home, log: env.Logger()}
	at, err := findEndpoint(cfg.URL, files)
	if err != nil {
		return nil, err
	}
	for _, entity := range cfg.Entities {
		if !partRule.MatchString(entity) {
			return nil, fmt.Errorf("%w: entities has %q: %s", fs.ErrInvalid, entity, partWords)
		}
	}
	if cfg.Entities == nil && at.isSylabs() {
		cfg.Entities = []string{"library"}
	}
	return &client{
		links:      links{bounded.Map[string, link]{Max: maxLinks}},
		registries: registries{all: bounded.Map[string, *registry]{Max: maxRegistries}},
		address:    address{configured: at}, entities: cfg.Entities, arch: env.WantedArch(), way: cfg.PushBy, show: cfg.Show, cache: env.Cache, http: env.HTTP, log: env.Logger(),
		login: &login{remote: env.Remote, secret: env.Secret, files: files, place: at}, partSize: bigUpload,
	}, nil
}
