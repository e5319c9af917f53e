// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// A resolver says which image a URI means.
type resolver struct {
	cat   *catalog.Catalog
	types backends.Types
	def   string // remote of a URI that names none
}

// A Purpose is what an image is wanted for.
type Purpose int

// The purposes.
const (
	Reading Purpose = iota // a remote that knows the name may be meant
	Writing                // the remote is as it is written
)

// Resolve reads a URI as the commands take it. Without a remote it means the
// default one; a host means the remote whose URL has it; for reading also the
// one other remote that knows the name. Where no remote has the name before
// "://", that is taken for what Singularity and Docker mean by it (docker://,
// shub://, library://, oras://): the one remote of that type, or of the host.
//
// Errors: fs.ErrInvalid for a bad name, or one known to several remotes (they
// are listed); fs.ErrNotExist for an unknown remote.
func (v *resolver) Resolve(ctx context.Context, uri string, purpose Purpose) (catalog.Remote, backends.Ref, error) {
	return v.resolve(ctx, uri, v.def, purpose)
}

// localRemote is the remote of the local catalogue, which is always there.
const localRemote = "local"

// resolve is Resolve with the remote that a URI without one means: to the verbs
// of the local catalogue (Add, Get, Remove) that is localRemote, whatever the
// default is, as with the sregistry client.
//
// Of a digest that is written in part the whole is returned, see catalog.Catalog.Exact.
func (v *resolver) resolve(ctx context.Context, uri, without string, purpose Purpose) (catalog.Remote, backends.Ref, error) {
	r, ref, err := v.resolveName(ctx, uri, without, purpose)
	if err == nil {
		ref, err = v.cat.Exact(ctx, r.Name, ref)
	}
	return r, ref, err
}

func (v *resolver) resolveName(ctx context.Context, uri, without string, purpose Purpose) (catalog.Remote, backends.Ref, error) {
	u, err := backends.ParseURI(uri)
	if err != nil {
		return catalog.Remote{}, backends.Ref{}, err
	}
	switch {
	case u.Remote != "":
		r, ref, err := v.resolveScheme(uri, u)
		if err == nil && purpose == Reading && u.Bare {
			ref = v.orAtRoot(ctx, r, ref)
		}
		return r, ref, err
	case u.Host != "":
		r, err := v.remoteOfHost(u)
		return r, u.Ref, err
	}
	r, err := v.cat.Remote(without)
	if err != nil {
		return catalog.Remote{}, backends.Ref{}, fmt.Errorf("%s: %w", uri, err)
	}
	if purpose == Writing {
		return r, u.Ref, nil
	}
	_, err = v.cat.Lookup(ctx, r.Name, u.Ref)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
		return r, u.Ref, nil
	}
	others := v.othersWith(ctx, u.Ref, r.Name)
	switch len(others) {
	case 0:
		return r, u.Ref, nil // the default remote's answer says why
	case 1:
		return others[0], u.Ref, nil
	}
	var names []string
	for _, o := range others {
		names = append(names, backends.URI{Remote: o.Name, Ref: u.Ref}.String())
	}
	return catalog.Remote{}, backends.Ref{}, fmt.Errorf("%w: %s is in several remotes: say which of %s",
		fs.ErrInvalid, u.Ref, strings.Join(names, ", "))
}

// orAtRoot returns ref, which is in the default collection because none was written, or
// the image of that name beside the collections, if only that is there, as in a
// folder of files.
func (v *resolver) orAtRoot(ctx context.Context, r catalog.Remote, ref backends.Ref) backends.Ref {
	root := ref
	root.Collection = ""
	if ref.Collection != backends.DefaultCollection {
		return ref
	}
	if !v.knows(ctx, r, ref) && v.knows(ctx, r, root) {
		return root
	}
	if _, err := v.cat.Lookup(ctx, r.Name, ref); !errors.Is(err, fs.ErrNotExist) {
		return ref
	}
	if _, err := v.cat.Lookup(ctx, r.Name, root); err != nil {
		return ref
	}
	return root
}

// remoteOfHost returns the remote of a URI that begins with a host: the configured one whose
// address that is, else the host itself.
func (v *resolver) remoteOfHost(u backends.URI) (catalog.Remote, error) {
	if r, ok := v.configuredAt(u.Host); ok {
		return r, nil
	}
	r, why, ok := v.hostItself(u.Host)
	if ok {
		return r, nil
	}
	return r, backends.NotFound("no remote has the host %q%s (for an image of another remote write %s://%s)", u.Host, why, v.def, u)
}

// configuredAt returns the configured remote whose address has that host.
func (v *resolver) configuredAt(host string) (catalog.Remote, bool) {
	host = v.canonical(host)
	for _, r := range v.cat.Remotes() {
		at, err := url.Parse(r.URL)
		if err == nil && at.Host == "" {
			at, err = url.Parse("//" + r.URL)
		}
		if err == nil && !r.ByHost && (strings.EqualFold(v.canonical(at.Host), host) || at.Port() != "" && strings.EqualFold(at.Hostname(), host)) {
			return r, true
		}
	}
	return catalog.Remote{}, false
}

// hostItself returns the remote that a host is without being configured, or why it is none.
func (v *resolver) hostItself(host string) (r catalog.Remote, why string, ok bool) {
	r, err := v.cat.Host(strings.TrimSuffix(v.canonical(host), ":443"))
	if err != nil && v.cat.HasHosts() {
		why = ": " + err.Error()
	}
	return r, why, err == nil
}

// othersWith returns the configured remotes except one that have an image, as far as is
// known without a request. A host is meant only where it is named: else whoever has a path
// opened would say what a bare name means.
func (v *resolver) othersWith(ctx context.Context, ref backends.Ref, besides string) []catalog.Remote {
	var others []catalog.Remote
	for _, r := range v.cat.Remotes() {
		if r.Name != besides && !r.ByHost && v.knows(ctx, r, ref) {
			others = append(others, r)
		}
	}
	return others
}

func (v *resolver) knows(ctx context.Context, r catalog.Remote, ref backends.Ref) bool {
	if r.Local() {
		_, err := v.cat.Stat(ctx, r.Name, ref)
		return err == nil
	}
	s, err := v.cat.State()
	if err != nil {
		return false
	}
	e, ok := s.Index.Entry(r.Name, ref)
	if !ok && ref.Version != "" && ref.Tag != "" {
		tag := ref
		tag.Version = ""
		e, ok = s.Index.Entry(r.Name, tag)
		ok = ok && (e.Image.Version == ref.Version || e.Image.Digest == ref.Version)
	}
	return ok && (e.Shown() || e.Is(index.Full))
}

// schemeType returns the type that a scheme by itself means.
func (v *resolver) schemeType(scheme string) (backends.Type, bool) {
	return v.types.Find(func(t backends.Type) bool { return slices.Contains(t.Schemes, scheme) })
}

// hostType returns the type of what is at a host that follows the scheme.
func (v *resolver) hostType(scheme string) (backends.Type, bool) {
	return v.types.Find(func(t backends.Type) bool { return slices.Contains(t.HostSchemes, scheme) })
}

// resolveScheme resolves a URI that has something before "://": the name of a
// remote, or a word that stands for a kind of registry.
func (v *resolver) resolveScheme(uri string, u backends.URI) (catalog.Remote, backends.Ref, error) {
	r, err := v.cat.Remote(u.Remote)
	named := err == nil
	meant, isScheme := v.schemeType(u.Remote)
	if named && meant.Name != r.Type {
		return r, u.Ref, nil
	}
	hosted, takesHost := v.hostType(u.Remote)
	if at, ok := hostAfter(uri, u.Remote, hosted); ok && hosted.Folders && !named {
		return v.inFolder(u.Remote, hosted, at)
	} else if ok {
		there, err := v.remoteAt(u.Remote, at)
		if err == nil || !hosted.DottedNames || !named || strings.Contains(at.Host, ":") {
			return there, at.Ref, err
		}
	}
	switch {
	case named:
		return r, u.Ref, nil
	case isScheme:
		r, err := v.remoteOfType(u, meant.Name)
		return r, u.Ref, err
	case takesHost:
		return catalog.Remote{}, backends.Ref{}, fmt.Errorf("%w: %s names no host (write %s://HOST/%s)", fs.ErrInvalid, uri, u.Remote, strings.TrimPrefix(uri, u.Remote+"://"))
	}
	return catalog.Remote{}, backends.Ref{}, err
}

// hostAfter parses what follows a scheme, if a host of that type can follow it.
func hostAfter(uri, scheme string, t backends.Type) (at backends.URI, ok bool) {
	if !slices.Contains(t.HostSchemes, scheme) {
		return at, false
	}
	at, err := backends.ParseURI(strings.TrimPrefix(uri, scheme+"://"))
	return at, err == nil && at.Host != "" && (!t.DottedNames || !at.Bare)
}

// remoteOfType returns the one remote that is of the type.
func (v *resolver) remoteOfType(u backends.URI, typ string) (catalog.Remote, error) {
	var found []catalog.Remote
	var uris []string
	for _, r := range v.cat.Remotes() {
		if r.Type == typ && !r.ByHost {
			found = append(found, r)
			uris = append(uris, backends.URI{Remote: r.Name, Ref: u.Ref}.String())
		}
	}
	switch len(found) {
	case 0:
		var why string
		if t, _ := v.types.Named(typ); len(t.Hosts) > 0 {
			r, no, ok := v.hostItself(t.Hosts[0])
			if ok {
				return r, nil
			}
			why = no
		}
		return catalog.Remote{}, backends.NotFound("no remote is named %q or of type %q%s (type: sreg remote add %s %s)", u.Remote, typ, why, u.Remote, typ)
	case 1:
		return found[0], nil
	}
	return catalog.Remote{}, fmt.Errorf("%w: several remotes are of type %q: say which of %s", fs.ErrInvalid, typ, strings.Join(uris, ", "))
}

// remoteAt returns the remote of the host that follows a scheme.
func (v *resolver) remoteAt(scheme string, at backends.URI) (catalog.Remote, error) {
	if r, ok := v.configuredAt(at.Host); ok {
		return r, nil
	}
	var why string
	if t, _ := v.hostType(scheme); t.OCI { // what a host is without being configured
		r, no, ok := v.hostItself(at.Host)
		if ok {
			return r, nil
		}
		why = no
	}
	return catalog.Remote{}, backends.NotFound("%s://%s is on the host %q, and no remote has it%s (type: sreg remote add %s)",
		scheme, at, at.Host, why, v.toAdd(scheme, at.Host))
}

// inFolder returns the remote of a type with Folders that has a file, and its name there:
// the configured one whose address is the longest, else the host if it is known to be one.
func (v *resolver) inFolder(scheme string, t backends.Type, at backends.URI) (best catalog.Remote, ref backends.Ref, err error) {
	if ref = at.Ref; at.Bare {
		ref.Collection = ""
	}
	folder := func(path string) string { return strings.ReplaceAll("/"+strings.Trim(path, "/")+"/", "//", "/") }
	longest, within := 0, ""
	for _, r := range v.cat.Remotes() {
		address, err := url.Parse(r.URL)
		if err != nil || r.Type != t.Name || !strings.EqualFold(address.Host, at.Host) {
			continue
		}
		base := folder(address.Path)
		if rest, ok := strings.CutPrefix(folder(ref.Collection), base); ok && len(base) > longest {
			best, longest, within = r, len(base), strings.Trim(rest, "/")
		}
	}
	if longest > 0 {
		ref.Collection = within
		return best, ref, nil
	}
	if known, _, ok := v.types.At(at.Host); ok && known.Name == t.Name {
		r, why, ok := v.hostItself(at.Host)
		if ok {
			return r, ref, nil
		}
		return r, ref, backends.NotFound("%s://%s%s", scheme, at, why)
	}
	return best, ref, backends.NotFound("%s://%s is on the host %q, and no remote has its folder (type: sreg remote add %s)", scheme, at, at.Host, v.toAdd(scheme, at.Host))
}

// toAdd returns the arguments of "sreg remote add" for a host that follows a scheme, or
// stands alone.
func (v *resolver) toAdd(scheme, host string) string {
	t, _, ok := v.types.At(host)
	if ok && len(t.Hosts) > 0 {
		return t.Name + " " + t.Name
	}
	if !ok {
		t, _ = v.hostType(scheme)
	}
	return "NAME " + t.Name + " url=https://" + host
}

// canonical returns the main name of a host that has several.
func (v *resolver) canonical(host string) string {
	_, name, _ := v.types.At(host)
	return name
}
