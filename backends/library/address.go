// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	versionPath = "/version"
	// configPath is where an endpoint says which services it has
	// (SingularityCE, internal/pkg/remote/endpoint/service.go).
	configPath = "/assets/config/config.prod.json"
	// guessLife is how long an address that answers to neither is taken for a library:
	// old libraries do not tell their version.
	guessLife = time.Minute
)

// The Sylabs cloud: its endpoint names its library, and nothing has to be asked.
const (
	sylabsEndpoint = "cloud.sylabs.io"
	sylabsLibrary  = "library.sylabs.io"
)

// An endpoint is where the configuration says that the library is.
type endpoint struct {
	address  *url.URL // of the library, or of an endpoint
	endpoint bool     // it is known to be an endpoint
	remote   *url.URL // the endpoint by which remote.yaml knows it
}

// findEndpoint parses the configured address; without one it takes the active remote.
func findEndpoint(configured string, files remoteFiles) (endpoint, error) {
	at := endpoint{address: &url.URL{Scheme: "https", Host: sylabsLibrary}}
	if configured != "" {
		u, err := httpx.Address(configured, "/v1")
		if err != nil {
			return endpoint{}, err
		}
		at.address = u
	} else if u := files.active(); u != nil {
		at.address, at.endpoint = u, true
	}
	at.remote = at.address
	if at.address.Scheme == "https" && (at.address.Host == sylabsEndpoint || at.address.Host == sylabsLibrary) {
		at = endpoint{
			address: &url.URL{Scheme: "https", Host: sylabsLibrary},
			remote:  &url.URL{Scheme: "https", Host: sylabsEndpoint},
		}
	}
	return at, nil
}

// isSylabs reports whether it is the Sylabs cloud, whose library's address is known.
func (p endpoint) isSylabs() bool { return p.address.Host == sylabsLibrary }

// An address is where the library is, once it is known.
type address struct {
	configured endpoint
	once       backends.Locks // for one who asks at a time

	mu      sync.Mutex // guards the fields below
	base    *url.URL
	until   time.Time // when base is looked for again; zero means never
	version *apiVersion
}

// get returns what is known: nil if nothing is.
func (h *address) get() *url.URL {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.until.IsZero() && time.Now().After(h.until) {
		h.base, h.until = nil, time.Time{}
	}
	return h.base
}

func (h *address) set(base *url.URL, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base, h.until = base, until
}

// base returns the address of the library. What the configuration names is asked
// for its version, and then whether it is an endpoint that names a library; after
// that it is known.
func (c *client) base(ctx context.Context) (*url.URL, error) {
	if base := c.address.get(); base != nil {
		return base, nil
	}
	at := c.address.configured
	if at.isSylabs() {
		c.address.set(at.address, time.Time{})
		return at.address, nil
	}
	unlock, err := c.address.once.Lock(ctx, "")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if base := c.address.get(); base != nil {
		return base, nil
	}
	if !at.endpoint {
		_, err := c.askVersion(ctx, at.address)
		if err == nil {
			c.address.set(at.address, time.Time{})
		}
		if err == nil || !isNotHere(err) {
			return at.address, err
		}
	}
	base, err := c.discover(ctx)
	if err == nil {
		if _, err = c.askVersion(ctx, base); isNotHere(err) {
			err = nil // old ones do not tell it
		}
	}
	switch {
	case err == nil:
		c.address.set(base, time.Time{})
		return base, nil
	case errors.Is(err, errNoEndpoint) && !at.endpoint:
		c.address.set(at.address, time.Now().Add(guessLife))
		return at.address, nil
	}
	return nil, err
}

var errNoEndpoint = errors.New("neither a library nor an endpoint that names one")

// isNotHere reports whether err says that there is no such service at an address.
func isNotHere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, backends.ErrBadAnswer)
}

// discover asks the endpoint for the address of its library.
// Errors: errNoEndpoint if it is none.
func (c *client) discover(ctx context.Context) (*url.URL, error) {
	at := c.address.configured.address
	req, err := httpx.NewRequest(ctx, http.MethodGet, at.String()+configPath, nil)
	if err != nil {
		return nil, err
	}
	var named struct {
		Library struct {
			URI string `json:"uri"`
		} `json:"libraryAPI"`
	}
	if err := c.object(req, &named); isNotHere(err) {
		return nil, fmt.Errorf("%w: %w", errNoEndpoint, err)
	} else if err != nil {
		return nil, err
	}
	if named.Library.URI == "" {
		return nil, fmt.Errorf("%w: %s names no library", errors.ErrUnsupported, at.Host)
	}
	u, err := httpx.Target(at, named.Library.URI)
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/")}, nil
}

// A Singularity Registry Server answers as a library of this version, and with its
// name at identityPath (shub/apps/base/views/main.py, shub/apps/api/urls/registry.py
// of github.com/singularityhub/sregistry).
const (
	registryVersion    = "v1.0.0"
	registryAPIVersion = "2.0.0-alpha.1"
	identityPath       = "/api/registry/identity"
)

// errRegistryServer: such a server never says whether an image was uploaded, so each
// of its tags looks free, and setting a tag deletes the one of another collection.
var errRegistryServer = fmt.Errorf("%w: this is a Singularity Registry Server, which is no whole library: use type = \"sregistry\"", fs.ErrInvalid)

// isRegistryServer asks what is at base whether it is a Singularity Registry Server.
func (c *client) isRegistryServer(ctx context.Context, base *url.URL) bool {
	req, err := httpx.NewRequest(ctx, http.MethodGet, base.String()+identityPath, nil)
	if err != nil {
		return false
	}
	var said struct{ Name, ID, URL string }
	return c.object(req, &said) == nil && said.Name != "" && said.ID != "" && said.URL != ""
}

// askVersion asks what is at base for the version of its library API.
func (c *client) askVersion(ctx context.Context, base *url.URL) (apiVersion, error) {
	req, err := httpx.NewRequest(ctx, http.MethodGet, base.String()+versionPath, nil)
	if err != nil {
		return apiVersion{}, err
	}
	var said struct {
		Version    string `json:"version"`
		APIVersion string `json:"apiVersion"`
	}
	if err := c.data(req, &said); err != nil {
		return apiVersion{}, err
	}
	if said.Version == registryVersion && said.APIVersion == registryAPIVersion && c.isRegistryServer(ctx, base) {
		return apiVersion{}, errRegistryServer
	}
	v := parseVersion(said.APIVersion)
	c.address.mu.Lock()
	defer c.address.mu.Unlock()
	c.address.version = &v
	return v, nil
}

// version returns that of the library API; the zero one if the library does not
// tell.
func (c *client) version(ctx context.Context) (apiVersion, error) {
	base, err := c.base(ctx)
	if err != nil {
		return apiVersion{}, err
	}
	c.address.mu.Lock()
	known := c.address.version
	c.address.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	v, err := c.askVersion(ctx, base)
	if isNotHere(err) {
		return apiVersion{}, nil
	}
	return v, err
}
