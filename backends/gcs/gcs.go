// SPDX-License-Identifier: Apache-2.0

// Package gcs keeps images as objects in a bucket of Google Cloud Storage, under the names
// and with the metadata that the sregistry client gives them:
//
//	<collection…>/<image>:<tag>.sif
//
// It speaks the JSON API (https://cloud.google.com/storage/docs/json_api/v1). Logins are those
// of backends/internal/google, names and what has to be looked at before a change those of
// backends/internal/files. It is no client of Google Storage's S3 API: that is the type s3.
//
// Start at [Open], then store.go.
package gcs

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

var (
	_ backends.Backend       = (*client)(nil)
	_ backends.Lister        = (*client)(nil)
	_ backends.Pusher        = (*client)(nil)
	_ backends.Deleter       = (*client)(nil)
	_ backends.Mover         = (*client)(nil)
	_ backends.Copier        = (*client)(nil)
	_ backends.Tagger        = (*client)(nil)
	_ backends.VersionLister = (*client)(nil)
	_ backends.Sharer        = (*client)(nil)
	_ backends.NameChecker   = (*client)(nil)
	_ backends.Addressed     = (*client)(nil)
	_ backends.Knocker       = (*client)(nil)
	_ backends.LoginChecker  = (*client)(nil)
	_ backends.LoopbackLogin = (*client)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for
// type = "google-storage".
type Config struct {
	// URL is scheme, host and port of what stands in for Google: a proxy, an emulator. All
	// requests go there.
	URL string `toml:"url"`
	// Bucket holds the images.
	Bucket string `toml:"bucket"` // required
	// Prefix is what all names begin with, as a folder; the default is the whole bucket.
	Prefix string `toml:"prefix"`

	// Credentials, ClientID, ClientSecret, ClientFile and Anonymous are google.Options.
	Credentials  string `toml:"credentials"`
	ClientID     string `toml:"client_id"`
	ClientSecret string `toml:"client_secret"`
	ClientFile   string `toml:"client_file"`
	Anonymous    bool   `toml:"anonymous"`

	// Public says that a link, if somebody asks for one, lets everybody read the image for ever.
	Public bool `toml:"public"`
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "google-storage", Open: Open, Needs: "bucket"}

type client struct {
	*files.Reader
	*files.Pusher
	*files.Copier
	*files.Mover
	*files.Archive
	store *store
}

// scope also allows to say who may read an object, which sharing does. What an account may
// do at all is the bucket's to say.
const scope = "https://www.googleapis.com/auth/devstorage.full_control"

// maxName is how many bytes an object's name can have.
// https://cloud.google.com/storage/docs/objects#naming
const maxName = 1024

var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$`)

// Open is the opener. It sends no request.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	s, err := newStore(env, cfg)
	if err != nil {
		return nil, err
	}
	r := files.NewReader(s, files.Layout{MaxPart: maxName, MaxPath: maxName - len(s.prefix)})
	p := files.NewPusher(r, s)
	s.ref = r.Ref
	return &client{r, p, files.NewCopier(p, s), files.NewMover(p, s), files.NewArchive(r, s), s}, nil
}

func newStore(env backends.Env, cfg Config) (*store, error) {
	if !bucketName.MatchString(cfg.Bucket) {
		return nil, fmt.Errorf("%w: remote %s: bucket %q is not the name of a bucket", fs.ErrInvalid, env.Remote, cfg.Bucket)
	}
	s := &store{
		base: googles, bucket: cfg.Bucket, remote: env.Remote, public: cfg.Public,
		log: env.Logger(), small: smallSize, chunk: chunkSize,
	}
	opts := google.Options{
		Scopes: []string{scope}, Credentials: cfg.Credentials, Anonymous: cfg.Anonymous,
		ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, ClientFile: cfg.ClientFile,
	}
	var err error
	if cfg.URL != "" {
		if opts.Base, err = httpx.Address(cfg.URL, "/storage/v1"); err != nil {
			return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
		}
		if opts.Base.Path != "" {
			return nil, fmt.Errorf("%w: remote %s: url %q has more than a host (a folder is said by prefix)", fs.ErrInvalid, env.Remote, backends.Redact(cfg.URL))
		}
		s.base = opts.Base.Scheme + "://" + opts.Base.Host
	}
	if s.prefix, err = parsePrefix(cfg.Prefix); err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	s.login, err = google.New(env, opts)
	return s, err
}

// parsePrefix returns prefix with a slash behind it, or "".
func parsePrefix(prefix string) (string, error) {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "\r\n\x00") {
			return "", fmt.Errorf("%w: prefix %q", fs.ErrInvalid, prefix)
		}
	}
	if len(prefix) > maxName/2 {
		return "", fmt.Errorf("%w: a prefix of %d bytes leaves no room for names", fs.ErrInvalid, len(prefix))
	}
	return prefix + "/", nil
}

// Address implements backends.Addressed.
func (c *client) Address() string { return c.store.base }

// Knock implements backends.Knocker.
func (c *client) Knock() (method, address string) {
	return http.MethodGet, c.store.objects(url.Values{"maxResults": {"1"}})
}

// CheckLogin implements backends.LoginChecker. Google refuses a token that is none also where
// everybody may read.
func (c *client) CheckLogin(ctx context.Context) error {
	var page listing
	if err := c.store.get(ctx, c.store.objects(url.Values{"maxResults": {"1"}, "fields": {"kind"}}), &page); err != nil {
		return c.store.noBucket(err)
	}
	return page.check()
}

// StartLoopbackLogin implements backends.LoopbackLogin.
func (c *client) StartLoopbackLogin(redirect string) (page string, exchange func(ctx context.Context, sent string) (secret string, err error), err error) {
	return c.store.login.StartLoopbackLogin(redirect)
}
