// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
)

// Resolve reads a URI as the commands take it. Without a remote it means the
// default one; a host means the remote whose URL has it; for reading also the
// one other remote that knows the name. Where no remote has the name before
// "://", that is taken for what Singularity and Docker mean by it (docker://,
// shub://, library://, oras://): the one remote of that type, or of the host.
//
// Errors: fs.ErrInvalid for a bad name, or one known to several remotes (they
// are listed); fs.ErrNotExist for an unknown remote.
func (c *Catalog) Resolve(ctx context.Context, uri string, reading bool) (Remote, backends.Ref, error) {
	return c.resolve(ctx, uri, c.opts.Default, reading)
}

// localRemote is the remote of the local catalogue, which is always there.
const localRemote = "local"

// resolve is Resolve with the remote that a URI without one means: to the verbs
// of the local catalogue (Add, Get, Remove) that is localRemote, whatever the
// default is, as with the sregistry client.
func (c *Catalog) resolve(ctx context.Context, uri, without string, reading bool) (Remote, backends.Ref, error) {
	u, err := backends.ParseURI(uri)
	if err != nil {
		return Remote{}, backends.Ref{}, err
	}
	switch {
	case u.Remote != "":
		r, ref, err := c.resolveScheme(uri, u)
		if err == nil && reading && u.Bare {
			ref = c.orAtRoot(ctx, r, ref)
		}
		return r, ref, err
	case u.Host != "":
		r, err := c.remoteOfHost(u)
		return r, u.Ref, err
	}
	r, err := c.Remote(without)
	if err != nil {
		return Remote{}, backends.Ref{}, fmt.Errorf("%s: %w", uri, err)
	}
	if !reading {
		return r, u.Ref, nil
	}
	_, err = c.Lookup(ctx, r.Name, u.Ref)
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
		return r, u.Ref, nil
	}
	others := c.whoKnows(ctx, u.Ref, r.Name)
	switch len(others) {
	case 0:
		return r, u.Ref, nil // whoever asks gets the default remote's answer
	case 1:
		return others[0], u.Ref, nil
	}
	var names []string
	for _, o := range others {
		names = append(names, backends.URI{Remote: o.Name, Ref: u.Ref}.String())
	}
	return Remote{}, backends.Ref{}, fmt.Errorf("%w: %s is in several remotes: say which of %s",
		fs.ErrInvalid, u.Ref, strings.Join(names, ", "))
}

// orAtRoot returns ref, which is in the default collection because none was written, or
// the image of that name beside the collections, if only that is there: a folder of files
// has its images so.
func (c *Catalog) orAtRoot(ctx context.Context, r Remote, ref backends.Ref) backends.Ref {
	root := ref
	root.Collection = ""
	if ref.Collection != backends.DefaultCollection {
		return ref
	}
	if !c.knows(ctx, r, ref) && c.knows(ctx, r, root) {
		return root
	}
	if _, err := c.Lookup(ctx, r.Name, ref); !errors.Is(err, fs.ErrNotExist) {
		return ref
	}
	if _, err := c.Lookup(ctx, r.Name, root); err != nil {
		return ref
	}
	return root
}

// remoteOfHost returns the remote of a URI that begins with a host.
func (c *Catalog) remoteOfHost(u backends.URI) (Remote, error) {
	for _, r := range c.remotes.all() {
		at, err := url.Parse(r.URL)
		if err == nil && at.Host == "" {
			at, err = url.Parse("//" + r.URL)
		}
		host := c.canonical(u.Host)
		if err == nil && (strings.EqualFold(c.canonical(at.Host), host) || at.Port() != "" && strings.EqualFold(at.Hostname(), host)) {
			return r, nil
		}
	}
	return Remote{}, backends.NotFound("no remote has the host %q (for an image of another remote write %s://%s)",
		u.Host, c.opts.Default, u)
}

// whoKnows returns the remotes besides one that have an image, as far as can be
// told without a request.
func (c *Catalog) whoKnows(ctx context.Context, ref backends.Ref, besides string) []Remote {
	var who []Remote
	for _, r := range c.remotes.all() {
		if r.Name != besides && c.knows(ctx, r, ref) {
			who = append(who, r)
		}
	}
	return who
}

func (c *Catalog) knows(ctx context.Context, r Remote, ref backends.Ref) bool {
	if r.atHand() {
		_, err := c.statNow(ctx, r, ref)
		return err == nil
	}
	s, err := c.store()
	if err != nil {
		return false
	}
	e, ok := s.Entry(r.Name, ref)
	if !ok && ref.Version != "" && ref.Tag != "" {
		tag := ref
		tag.Version = ""
		e, ok = s.Entry(r.Name, tag)
		ok = ok && (e.Image.Version == ref.Version || e.Image.Digest == ref.Version)
	}
	return ok && (e.Shown() || e.Is(index.Full))
}
