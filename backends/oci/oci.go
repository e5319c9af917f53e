// SPDX-License-Identifier: Apache-2.0

// Package oci keeps SIF images in any OCI registry, as Apptainer and
// SingularityCE push and pull them with oras:// (one layer, the SIF file; the
// digest of the layer is the digest of the file).
//
// Tokens, credential files and helpers are those of oras-go. What it lacks is
// here: reading a range of a blob, an upload in pieces that survives a restart,
// and deleting one tag of several. Container images are shown as they are, as an
// archive of their blobs (package archive). It is no converter: their layers are
// not made into a SIF.
//
// Services that have more to them than a registry are types of their own, by a
// table of presets (preset.go): where they are, how they list (list_services.go), what
// is odd about their logins. docs/where-to-begin.md says what is in which file.
package oci

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend       = (*client)(nil)
	_ backends.Lister        = (*client)(nil)
	_ backends.Pusher        = (*client)(nil)
	_ backends.Deleter       = (*client)(nil)
	_ backends.Mover         = (*client)(nil)
	_ backends.Copier        = (*client)(nil)
	_ backends.Tagger        = (*client)(nil)
	_ backends.Untagger      = (*client)(nil)
	_ backends.VersionLister = (*client)(nil)
	_ backends.NameChecker   = (*client)(nil)
	_ backends.Layered       = (*client)(nil)

	_ backends.ArchiveLister = (*client)(nil)
)

// Config is the [remotes.NAME] section of the configuration file for
// type = "oci", and for the types of the presets, which take some more keys each.
type Config struct {
	// URL is the scheme, host and port of the registry. Only "http" gives
	// unencrypted connections.
	URL string `toml:"url"`
	// Namespace is what every repository of the remote begins with, such as an
	// account's name; it does not show in the tree.
	Namespace string `toml:"namespace"`
	// Credentials are the docker-config files to look for a login in, in this
	// order. The default is those of Docker, Podman, Singularity and Apptainer.
	Credentials []string `toml:"credentials"`
	// AuthHost is a further host to which the registry may send its clients
	// for a token.
	AuthHost string `toml:"auth_host"`
	// Auth is how to log in: "" is as the registry asks for, "bearer" sends the
	// secret as it is, as the token of each request.
	Auth string `toml:"auth"`
	// Layout is how an image is pushed: "" as with oras://, "library" as the
	// registry behind a Sylabs library wants it.
	Layout string `toml:"layout"`
	// Show is as what container images are shown: one of backends.Shows. The default is the
	// first of them.
	Show string `toml:"show"`

	// API is where the service's own API is, for listings.
	API string `toml:"api"`
	// Namespaces are the accounts, groups or projects that the remote's root
	// shows, where the service does not tell all it has.
	Namespaces []string `toml:"namespaces"`
	// Account and Region are where a registry of AWS is, in place of a URL.
	Account string `toml:"account"`
	Region  string `toml:"region"`
}

// The values of Config.Auth and Config.Layout.
const (
	authBearer    = "bearer"
	layoutLibrary = "library"
)

type client struct {
	config    Config
	preset    preset
	base      *url.URL // scheme and host of the registry
	namespace string
	arch      string
	chunk     int64 // bytes of one PATCH
	log       *slog.Logger

	auth   *auth.Client // requests to the registry, with a login where one is asked for
	plain  *http.Client // requests to where the registry redirects to
	login  *login
	lister lister // nil: the registry's catalogue lists

	tokens    tokens                      // what auth has logged in with
	manifests manifestCache               // manifests seen
	store     store                       // the same, on the disk
	archives  archives                    // container images seen
	layered   layered                     // the same, as SIFs
	redirects redirects                   // where blobs were redirected to
	copied    bounded.Map[string, string] // blobs that were copied here, by digest: the repository
	catalog   catalogs                    // the repositories, for a moment
	limits    limits                      // what the service still allows
	commits   backends.Locks              // one publication of a tag, one upload of a blob at a time
	unsaved   uploads.Unsaved             // the uploads that were broken off
}

// Open is the opener of all Types.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	p := presets[env.Type]
	cfg, err := p.decode(env)
	if err != nil {
		return nil, err
	}
	base, err := parseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	namespace := strings.Trim(cfg.Namespace, "/")
	if namespace != "" {
		if err := checkRepository(namespace); err != nil {
			return nil, fmt.Errorf("remote %s: namespace: %w", env.Remote, err)
		}
	}
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	c := &client{
		config: cfg, preset: p, base: base, namespace: namespace, arch: env.WantedArch(), chunk: cmp.Or(p.chunk, chunkSize), log: env.Logger(),
	}
	c.copied.Max = maxKnown
	c.manifests.images.Max, c.manifests.tags.Max = maxKnown, maxKnown
	c.layered.slots = make(chan struct{}, layerRequests)
	c.layered.shapes.Max, c.layered.configs.Max = maxKnown, maxConfigs
	c.store = newStore(env.Cache, c.log)
	c.limits.log = c.log
	plain := *env.HTTP
	plain.Transport = &guard{next: env.HTTP.Transport, home: base, authHost: cfg.AuthHost}
	c.plain = &plain
	c.login = newLogin(env, cfg, p, base.Host)
	c.auth = newAuth(c.plain, c.login)
	if c.lister, err = c.newLister(env, cfg); err != nil {
		return nil, err
	}
	if p.withoutList {
		return withoutList{c, c, c, c, c, c, c, c, c, c, c, c, c, c, c}, nil
	}
	return c, nil
}

// check looks at the settings that are one of some words.
func (cfg Config) check() error {
	switch {
	case cfg.Auth != "" && cfg.Auth != authBearer:
		return fmt.Errorf("%w: auth = %q%s", fs.ErrInvalid, cfg.Auth, backends.DidYouMean(cfg.Auth, []string{authBearer}))
	case cfg.Layout != "" && cfg.Layout != layoutLibrary:
		return fmt.Errorf("%w: layout = %q%s", fs.ErrInvalid, cfg.Layout, backends.DidYouMean(cfg.Layout, []string{layoutLibrary}))
	}
	return backends.CheckShow(cfg.Show)
}

// dockerHub is where docker.io answers.
const dockerHub = "registry-1.docker.io"

// parseURL returns the scheme and host of a registry. The names that Docker Hub
// goes by are not those at which it answers.
func parseURL(s string) (*url.URL, error) {
	u, err := httpx.Address(s, "/v2", "/v1") // index.docker.io/v1/ is a key in Docker's own files
	if err != nil {
		return nil, err
	}
	if namespace := strings.Trim(strings.TrimPrefix(u.Path+"/", "/v2"), "/"); namespace != "" {
		return nil, fmt.Errorf("%w: url %q has more than a host (say namespace = %q)", fs.ErrInvalid, backends.Redact(s), namespace)
	}
	host := u.Host
	if host == "docker.io" || host == "index.docker.io" {
		host = dockerHub
	}
	// Credential files omit the default port.
	host = strings.TrimSuffix(host, map[string]string{"https": ":443", "http": ":80"}[u.Scheme])
	return &url.URL{Scheme: u.Scheme, Host: host}, nil
}
