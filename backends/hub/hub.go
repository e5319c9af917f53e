// SPDX-License-Identifier: Apache-2.0

// Package hub reads the archive of Singularity Hub (shub://), which took its
// last build in April 2021 and has been a directory of files since
// (https://github.com/con/shub). Nothing in it changes any more.
//
// What there is stands in one file, the index: it is fetched once, kept, and
// answers everything but the bytes of images. Those are plain files of an HTTP
// server. The small service under the old address, which knows one image at a
// time, is asked only while there is no index.
//
// It is no client of the registry that Singularity Hub was: builds, collections
// by number and stars are gone.
//
// Begin with index.go (what there is), then index_load.go (where it comes from),
// read.go (Stat and Open) and api.go (without the index).
package hub

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
)

var (
	_ backends.Backend     = (*client)(nil)
	_ backends.Lister      = (*client)(nil)
	_ backends.Searcher    = (*client)(nil)
	_ backends.NameChecker = (*client)(nil)
	_ io.Closer            = (*client)(nil)
)

const (
	serviceHost = "singularity-hub.org"
	// archiveURL is where the service of the archive says that the images are
	// (TOP_URL in _service_/serve.py of con/shub).
	archiveURL = "https://datasets.datalad.org/shub"
	// indexPath is where the index lies in the data set.
	indexPath = "/_data_/images.json"
	// indexURL is the index in the data set's own repository.
	indexURL = "https://raw.githubusercontent.com/con/shub/master" + indexPath
)

// Config is the [remotes.NAME] section of the configuration file for
// type = "hub".
type Config struct {
	// URL is the address of the service that knows one image at a time.
	URL string `toml:"url"`
	// Data is where the image files lie, as ORG/REPO/TAG/BUILD/FILE.
	Data string `toml:"data"`
	// Index is where images.json is. Without it: in the data set if Data is
	// set, else in its repository.
	Index string `toml:"index"`
}

type client struct {
	api   *url.URL
	data  *url.URL
	index string // its address
	kept  string // the file that the index is kept in; "" if nowhere
	http  *http.Client
	log   *slog.Logger

	patience  time.Duration // that a question for one image has with the index
	most      int64         // bytes that an index may have
	loaded    atomic.Pointer[index]
	locations locations // of images that only the service knows

	mu       sync.Mutex  // guards the fields below
	fetching *indexFetch // the index on its way here
	failed   error       // why it did not get here last
	failedAt time.Time
	closed   bool
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "hub", Open: Open, Login: backends.LoginNone, Schemes: []string{"shub", "hub"}, Hosts: []string{serviceHost}}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	cfg := Config{URL: "https://" + serviceHost}
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	if cfg.Index == "" && cfg.Data != "" {
		cfg.Index = strings.TrimRight(cfg.Data, "/") + indexPath
	}
	if cfg.Index == "" {
		cfg.Index = indexURL
	}
	if cfg.Data == "" {
		cfg.Data = archiveURL
	}
	c := &client{http: env.HTTP, log: env.Logger(), patience: indexPatience, most: maxIndex}
	for _, s := range []struct {
		key, value string
		to         func(*url.URL)
	}{
		{"url", cfg.URL, func(u *url.URL) { u.Path = strings.TrimSuffix(u.Path, "/api"); c.api = u }},
		{"data", cfg.Data, func(u *url.URL) { c.data = u }},
		{"index", cfg.Index, func(u *url.URL) { c.index = u.String() }},
	} {
		u, err := parseURL(s.value)
		if err != nil {
			return nil, fmt.Errorf("remote %s: %s: %w", env.Remote, s.key, err)
		}
		s.to(u)
	}
	c.kept = keptFile(env.Cache, c.index)
	return c, nil
}

// parseURL returns an address without a last slash.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%w: want \"https://HOST[:PORT][/PATH]\"", fs.ErrInvalid)
	case u.User != nil:
		return nil, fmt.Errorf("%w: an address with a password: the archive has no logins", fs.ErrInvalid)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%w: %q has more than an address", fs.ErrInvalid, backends.Redact(s))
	}
	return &url.URL{Scheme: u.Scheme, Host: strings.ToLower(u.Host), Path: strings.TrimRight(u.Path, "/")}, nil
}

// Close ends a fetch of the index that is under way.
func (c *client) Close() error {
	c.mu.Lock()
	c.closed = true
	f := c.fetching
	c.mu.Unlock()
	if f != nil {
		f.cancel()
		<-f.done
	}
	return nil
}
