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

// schemeType returns the type that a scheme by itself means.
func (c *Catalog) schemeType(scheme string) (backends.Type, bool) {
	return c.opts.Types.Find(func(t backends.Type) bool { return slices.Contains(t.Schemes, scheme) })
}

// hostType returns the type of what is at a host that follows the scheme.
func (c *Catalog) hostType(scheme string) (backends.Type, bool) {
	return c.opts.Types.Find(func(t backends.Type) bool { return slices.Contains(t.HostSchemes, scheme) })
}

// resolveScheme resolves a URI that has something before "://": the name of a
// remote, or a word that stands for a kind of registry.
func (c *Catalog) resolveScheme(uri string, u backends.URI) (Remote, backends.Ref, error) {
	r, err := c.Remote(u.Remote)
	named := err == nil
	meant, isScheme := c.schemeType(u.Remote)
	if named && meant.Name != r.Type {
		return r, u.Ref, nil
	}
	hosted, takesHost := c.hostType(u.Remote)
	if at, ok := hostAfter(uri, u.Remote, hosted); ok {
		there, err := c.remoteAt(u.Remote, at)
		if err == nil || !hosted.DottedNames || !named || strings.Contains(at.Host, ":") {
			return there, at.Ref, err
		}
	}
	switch {
	case named:
		return r, u.Ref, nil
	case isScheme:
		r, err := c.remoteOfType(u, meant.Name)
		return r, u.Ref, err
	case takesHost:
		return Remote{}, backends.Ref{}, fmt.Errorf("%w: %s names no host (write %s://HOST/%s)", fs.ErrInvalid, uri, u.Remote, strings.TrimPrefix(uri, u.Remote+"://"))
	}
	return Remote{}, backends.Ref{}, err
}

// hostAfter reads what stands after a scheme, if that is one which a host of such a type
// can follow.
func hostAfter(uri, scheme string, t backends.Type) (at backends.URI, ok bool) {
	if !slices.Contains(t.HostSchemes, scheme) {
		return at, false
	}
	at, err := backends.ParseURI(strings.TrimPrefix(uri, scheme+"://"))
	return at, err == nil && at.Host != "" && (!t.DottedNames || !at.Bare)
}

// remoteOfType returns the one remote that is of the type.
func (c *Catalog) remoteOfType(u backends.URI, typ string) (Remote, error) {
	var found []Remote
	var uris []string
	for _, r := range c.remotes.all() {
		if r.Type == typ {
			found = append(found, r)
			uris = append(uris, backends.URI{Remote: r.Name, Ref: u.Ref}.String())
		}
	}
	switch len(found) {
	case 0:
		return Remote{}, backends.NotFound("no remote is named %q or of type %q (type: sreg remote add %s %s)",
			u.Remote, typ, u.Remote, typ)
	case 1:
		return found[0], nil
	}
	return Remote{}, fmt.Errorf("%w: several remotes are of type %q: say which of %s", fs.ErrInvalid, typ, strings.Join(uris, ", "))
}

// remoteAt returns the remote of the host that follows a scheme.
func (c *Catalog) remoteAt(scheme string, at backends.URI) (Remote, error) {
	r, err := c.remoteOfHost(at)
	if errors.Is(err, fs.ErrNotExist) {
		return Remote{}, backends.NotFound("%s://%s is on the host %q, and no remote has it (type: sreg remote add %s)",
			scheme, at, at.Host, c.toAdd(scheme, at.Host))
	}
	return r, err
}

// toAdd returns what to say to "sreg remote add" for a host that follows a scheme, or
// stands alone.
func (c *Catalog) toAdd(scheme, host string) string {
	if t, ok := c.typeAt(host); ok {
		return t.Name + " " + t.Name
	}
	t, _ := c.hostType(scheme)
	return "NAME " + t.Name + " url=https://" + host
}

// typeAt returns the type of the service at a host, if it is known.
func (c *Catalog) typeAt(host string) (backends.Type, bool) {
	return c.opts.Types.Find(func(t backends.Type) bool { return slices.Contains(t.Hosts, strings.ToLower(host)) })
}

// canonical returns the one name by which a registry of several goes.
func (c *Catalog) canonical(host string) string {
	if t, ok := c.typeAt(host); ok {
		return t.Hosts[0]
	}
	return strings.ToLower(host)
}
