// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// schemes are the words before "://" that people write for a kind of registry,
// with the types of remote that are of that kind. The first type is what to add
// where there is none. Nobody changes the map.
var schemes = map[string][]string{
	"docker":  {"docker"},
	"shub":    {"hub", "shub"},
	"hub":     {"hub", "shub"},
	"library": {"library"},
	"nvidia":  {"nvidia"},
	"aws":     {"aws"},
	"ghcr":    {"ghcr"},
	"quay":    {"quay"},
	"gitlab":  {"gitlab"},
	registry:  {"sregistry"},
}

// registry is the sregistry client's word for a Singularity Registry Server.
const registry = "registry"

// resolveScheme resolves a URI that has something before "://": the name of a
// remote, or a word that stands for a kind of registry.
func (c *Catalog) resolveScheme(uri string, u backends.URI) (Remote, backends.Ref, error) {
	r, err := c.Remote(u.Remote)
	named := err == nil
	if named && (u.Remote != "docker" || r.Type != "docker") && (u.Remote != registry || r.Type != "sregistry") {
		return r, u.Ref, nil
	}
	if at, ok := hostAfter(uri, u.Remote); ok {
		there, err := c.remoteAt(u.Remote, at)
		// Accounts of Docker Hub have no dot in their names, old collections of such a server have.
		if err == nil || u.Remote != registry || !named || strings.Contains(at.Host, ":") {
			return there, at.Ref, err
		}
	}
	switch types := schemes[u.Remote]; {
	case named:
		return r, u.Ref, nil
	case u.Remote == "oras":
		return Remote{}, backends.Ref{}, fmt.Errorf("%w: %s names no host (write oras://HOST/%s)", fs.ErrInvalid, uri, strings.TrimPrefix(uri, "oras://"))
	case types != nil:
		r, err := c.remoteOfType(u, types)
		return r, u.Ref, err
	}
	return Remote{}, backends.Ref{}, err
}

// hostAfter reads what stands after a scheme that a host can follow. The sregistry client
// takes the first of at least three parts for one.
func hostAfter(uri, scheme string) (at backends.URI, ok bool) {
	if scheme != "docker" && scheme != "oras" && scheme != registry {
		return at, false
	}
	at, err := backends.ParseURI(strings.TrimPrefix(uri, scheme+"://"))
	return at, err == nil && at.Host != "" && (scheme != registry || !at.Bare)
}

// remoteOfType returns the one remote that is of one of the types.
func (c *Catalog) remoteOfType(u backends.URI, types []string) (Remote, error) {
	var found []Remote
	var uris []string
	for _, r := range c.remotes.all() {
		if slices.Contains(types, r.Type) {
			found = append(found, r)
			uris = append(uris, backends.URI{Remote: r.Name, Ref: u.Ref}.String())
		}
	}
	switch len(found) {
	case 0:
		return Remote{}, backends.NotFound("no remote is named %q or of type %q (type: sreg remote add %s %s)",
			u.Remote, types[0], u.Remote, types[0])
	case 1:
		return found[0], nil
	}
	return Remote{}, fmt.Errorf("%w: several remotes are of type %q: say which of %s", fs.ErrInvalid, found[0].Type, strings.Join(uris, ", "))
}

// remoteAt returns the remote of the host that follows a scheme.
func (c *Catalog) remoteAt(scheme string, at backends.URI) (Remote, error) {
	r, err := c.remoteOfHost(at)
	if errors.Is(err, fs.ErrNotExist) {
		return Remote{}, backends.NotFound("%s://%s is on the host %q, and no remote has it (type: sreg remote add %s)",
			scheme, at, at.Host, toAdd(scheme, at.Host))
	}
	return r, err
}

// toAdd returns what to say to "sreg remote add" for a registry's host.
func toAdd(scheme, host string) string {
	if scheme == registry {
		return "NAME sregistry url=https://" + host
	}
	switch canonical(host) {
	case "docker.io":
		return "docker docker"
	case "ghcr.io":
		return "ghcr ghcr"
	case "quay.io":
		return "quay quay"
	case "nvcr.io":
		return "nvidia nvidia"
	case "registry.gitlab.com":
		return "gitlab gitlab"
	}
	return "NAME oci url=https://" + host
}

// canonical returns the one name by which a registry of several goes.
func canonical(host string) string {
	switch host := strings.ToLower(host); host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return host
}
