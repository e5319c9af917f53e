// SPDX-License-Identifier: Apache-2.0

// Package gitlab keeps images as generic packages of a GitLab project: package, version and
// file are image, tag and bytes. It is not the container registry of GitLab, which is a type of
// package oci.
//
// Start at [Open]; name.go says which package an image is, packages.go has the requests, push.go what
// changes packages. What the sregistry client reads from GitLab are files of CI jobs: that is a
// type of its own, in jobs.go. api.go is for both.
package gitlab

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

var (
	_ backends.Backend      = (*client)(nil)
	_ backends.Lister       = (*client)(nil)
	_ backends.Pusher       = (*client)(nil)
	_ backends.Deleter      = (*client)(nil)
	_ backends.NameChecker  = (*client)(nil)
	_ backends.Addressed    = (*client)(nil)
	_ backends.Knocker      = (*client)(nil)
	_ backends.LoginChecker = (*client)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for type = "gitlab-packages".
type Config struct {
	URL     string `toml:"url"`     // of GitLab; default https://gitlab.com
	Project string `toml:"project"` // "group/project", or its number; required
}

type client struct {
	*api
	project string

	locks backends.Locks                // of names that are being changed
	files bounded.Map[place, foundFile] // so that a range costs no search
}

// A place is a version of a name.
type place struct {
	ref     backends.Ref
	version string
}

const gitlabCom = "gitlab.com"

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "gitlab-packages", Open: Open, Needs: "project"}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	cfg := Config{URL: "https://" + gitlabCom}
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	a, err := newAPI(cfg.URL, env)
	if err != nil {
		return nil, err
	}
	project := strings.Trim(cfg.Project, "/")
	if project == "" {
		return nil, fmt.Errorf("%w: remote %s: project is required: \"group/project\"", fs.ErrInvalid, env.Remote)
	}
	return &client{api: a, project: project}, nil
}

// CheckLogin implements backends.LoginChecker. A public project shows its packages to everybody, so
// what is asked for is who has logged in; a job's token, which may not ask that, is tried at the project.
func (c *client) CheckLogin(ctx context.Context) error {
	path := "user"
	if c.user == jobUser || c.secret == nil {
		path = c.under("packages")
	}
	resp, err := c.do(ctx, http.MethodGet, path, url.Values{"per_page": {"1"}}, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// CheckName implements backends.NameChecker.
func (c *client) CheckName(ref backends.Ref) error {
	for what, s := range map[string]string{"package": packageName(ref), "version": encode(ref.Tag)} {
		if len(s) > maxName {
			return fmt.Errorf("%w: a %s with a name of %d bytes (at most %d)", fs.ErrInvalid, what, len(s), maxName)
		}
	}
	return nil
}

// Stat implements backends.Backend. As a version it takes the SHA-256, or the number that GitLab
// gives a file.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	f, err := c.find(ctx, ref)
	if err != nil {
		return backends.Image{}, err
	}
	want := ref.Version
	ref.Version = ""
	if want != "" && want != f.version() && want != f.digest() {
		return backends.Image{}, backends.NotFound("no such version")
	}
	return c.image(ref, f), nil
}

// image is what a file is, whose place is remembered.
func (c *client) image(ref backends.Ref, f foundFile) backends.Image {
	img := backends.Image{Ref: ref, Size: f.Size, Version: f.version(), Digest: f.digest(), Modified: f.CreatedAt.Truncate(time.Second), Format: f.format()}
	c.files.Put(place{ref, img.Version}, f)
	return img
}

// Open implements backends.Backend. GitLab gives the newest file of a name, and no version can be asked
// for: that it is the one of img is looked at once the answer has begun. What is sent then does not change.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if off < 0 {
		return nil, fmt.Errorf("%w: negative offset", fs.ErrInvalid)
	}
	if img.Size >= 0 {
		if rest := max(img.Size-off, 0); n < 0 || n > rest {
			n = rest
		}
	}
	if n == 0 {
		return http.NoBody, nil
	}
	ref := img.Ref
	ref.Version = ""
	f, known := c.files.Get(place{ref, img.Version})
	if !known {
		var err error
		if f, err = c.find(ctx, ref); err != nil {
			return nil, err
		}
		if f.version() != img.Version {
			return nil, backends.ErrChanged
		}
		c.files.Put(place{ref, img.Version}, f)
	}
	part := ranged.Span{Off: off, N: n}
	resp, err := c.do(ctx, http.MethodGet, f.path(c), nil, func(req *http.Request) error {
		part.Ask(req)
		return nil
	}, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, err
	}
	now, err := c.newest(ctx, f)
	if err = changed(err); err == nil && now.version() != img.Version {
		err = backends.ErrChanged
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return part.Body(resp, img.Size)
}

// List implements backends.Lister: a request for each hundred packages. It tells names alone; which of
// the packages have an image among their files, only Stat looks at.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		query := url.Values{"package_type": {"generic"}, "order_by": {"name"}, "sort": {"asc"}}
		if collection != "" && !strings.ContainsFunc(collection, strange) {
			query.Set("package_name", packageName(backends.Ref{Collection: collection})) // narrows it, and does not choose
		}
		told := map[string]bool{}
		for p, err := range pages[pack](ctx, c.api, c.under("packages"), query) {
			if err != nil {
				yield(backends.Entry{}, err)
				return
			}
			e, ok := p.entry(collection)
			if key := e.Collection + "\x00" + e.Image.Ref.String(); ok && !told[key] {
				told[key] = true
				if !yield(e, nil) {
					return
				}
			}
		}
		if len(told) == 0 && collection != "" {
			yield(backends.Entry{}, backends.NotFound("no such collection"))
		}
	}
}
