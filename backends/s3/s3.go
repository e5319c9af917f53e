// SPDX-License-Identifier: Apache-2.0

// Package s3 keeps images as objects of a bucket: of Amazon S3, and of all that speak its
// protocol (MinIO, Ceph, versitygw, R2, Garage). Their keys are those of the sregistry client,
// or of whoever put files there by hand:
//
//	<prefix/><collection…>/<image>:<tag>.sif
//
// Which name a key has is package files' business; here is the protocol. Signatures and the
// ways to a login are those of minio-go. The requests are our own (decision 112): each carries
// the condition under which it may change something, and no answer is larger than it must be.
//
// Start at [Open]; request.go sends, read.go and push.go are the [files.Writer].
package s3

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7/pkg/s3utils"
	"golang.org/x/sync/semaphore"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend        = (*client)(nil)
	_ backends.Lister         = (*client)(nil)
	_ backends.Pusher         = (*client)(nil)
	_ backends.Deleter        = (*client)(nil)
	_ backends.Mover          = (*client)(nil)
	_ backends.Copier         = (*client)(nil)
	_ backends.Tagger         = (*client)(nil)
	_ backends.VersionLister  = (*client)(nil)
	_ backends.Sharer         = (*client)(nil)
	_ backends.LeftoverLister = (*client)(nil)
	_ backends.NameChecker    = (*client)(nil)
	_ backends.Knocker        = (*client)(nil)
	_ backends.LoginChecker   = (*client)(nil)
	_ backends.Addressed      = (*client)(nil)

	_ files.Duplicator = (*bucket)(nil)
	_ files.Historian  = (*bucket)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for type = "s3".
type Config struct {
	// URL is the endpoint, perhaps with a path; the default is Amazon's of the region.
	URL    string `toml:"url"`
	Bucket string `toml:"bucket"` // required
	Prefix string `toml:"prefix"` // of all keys, as of a folder
	// Region is what requests are signed for: by default AWS_REGION, AWS_DEFAULT_REGION, what
	// the endpoint's name tells, or us-east-1.
	Region string `toml:"region"`
	// Style says where in an address the bucket is: "path", "virtual" for the host's name. By
	// default Amazon's endpoints get the latter, as far as the bucket's name allows it.
	Style string `toml:"style"`
	// Signature is "s3v4" (default), or "s3" for servers of old, as in SREGISTRY_S3_SIGNATURE.
	Signature string `toml:"signature"`

	Anonymous bool   `toml:"anonymous"` // look for no login
	Profile   string `toml:"profile"`   // in ~/.aws, instead of what the environment says
	Instance  bool   `toml:"instance"`  // ask the machine's metadata service for a login

	// LookFirst takes a look for the condition that the server does not know: see proof.go.
	LookFirst bool `toml:"look_first"`
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{
	Name: "s3", Open: Open, Needs: "bucket",
	LoginAdvice: "for a key pair of its own give \"sreg login\" ACCESS:SECRET[:SESSION]; else renew what gave the login (aws sso login, ~/.aws)",
}

type client struct {
	*files.Reader
	*files.Pusher
	*files.Copier
	*files.Mover
	*files.Archive

	bucket *bucket
}

// A bucket is the protocol: the files.Store and all that changes it.
type bucket struct {
	remote    string
	home      *url.URL // the endpoint
	name      string
	prefix    string // "" or "…/"
	region    string
	virtual   bool
	old       bool // signatures of version 2
	lookFirst bool

	http  *http.Client
	log   *slog.Logger
	keys  *keys
	proof proof

	unsaved uploads.Unsaved     // uploads that were broken off
	memory  *semaphore.Weighted // bytes of all pushes
	ledger  ledger

	piece     int64 // bytes of a part of an upload, at least
	copyPiece int64 // bytes of a part that the service copies
	page      int   // keys of a page
}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	b := &bucket{
		remote: env.Remote, name: cfg.Bucket, lookFirst: cfg.LookFirst, log: env.Logger(),
		memory: semaphore.NewWeighted(inMemory), ledger: ledger{dir: env.Cache}, piece: pieceSize, copyPiece: copySize, page: pageSize,
	}
	if err := b.configure(cfg, env.Getvar); err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	// A redirect is an answer here: it says that the bucket is somewhere else, and what followed
	// it would be signed for this place.
	hc := *env.HTTP
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	b.http, b.keys = &hc, newKeys(env, cfg, b.region, &hc)

	c := &client{bucket: b, Reader: files.NewReader(b, files.Layout{MaxPath: maxKey - len(b.prefix)})}
	c.Pusher = files.NewPusher(c.Reader, b)
	c.Copier = files.NewCopier(c.Pusher, b)
	c.Mover = files.NewMover(c.Pusher, b)
	c.Archive = files.NewArchive(c.Reader, b)
	return c, nil
}

const (
	maxKey = 1024 // bytes
	amazon = "https://s3.%s.amazonaws.com"
)

func (b *bucket) configure(cfg Config, getenv func(string) string) error {
	if err := s3utils.CheckValidBucketName(cfg.Bucket); err != nil {
		return fmt.Errorf("%w: bucket %q: %v", fs.ErrInvalid, cfg.Bucket, err)
	}
	var err error
	if b.prefix, err = parsePrefix(cfg.Prefix); err != nil {
		return err
	}
	address := cfg.URL
	if address != "" {
		if b.home, err = httpx.Address(address); err != nil {
			return err
		}
		b.region = s3utils.GetRegionFromURL(*b.home)
	}
	for _, region := range []string{getenv("AWS_DEFAULT_REGION"), getenv("AWS_REGION"), cfg.Region} {
		if region != "" {
			b.region = region
		}
	}
	if b.region == "" {
		b.region = "us-east-1"
	}
	if b.home == nil {
		if b.home, err = httpx.Address(fmt.Sprintf(amazon, b.region)); err != nil {
			return fmt.Errorf("%w: region %q", fs.ErrInvalid, b.region)
		}
	}
	switch cfg.Style {
	case "":
		b.virtual = s3utils.IsVirtualHostSupported(*b.home, b.name)
	case "path", "virtual":
		b.virtual = cfg.Style == "virtual"
	default:
		return fmt.Errorf("%w: style %q (known: path, virtual)", fs.ErrInvalid, cfg.Style)
	}
	switch cfg.Signature {
	case "", "s3v4", "s3":
		b.old = cfg.Signature == "s3"
	default:
		return fmt.Errorf("%w: signature %q (known: s3v4, s3)", fs.ErrInvalid, cfg.Signature)
	}
	return nil
}

// parsePrefix returns prefix with a slash behind it, or "".
func parsePrefix(prefix string) (string, error) {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(prefix, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return "", fmt.Errorf("%w: prefix %q", fs.ErrInvalid, prefix)
		}
	}
	return prefix + "/", nil
}

// key returns the key of a path.
func (b *bucket) key(path string) string { return b.prefix + path }

// Address implements backends.Addressed.
func (c *client) Address() string { return c.bucket.home.String() }

// Knock implements backends.Knocker: every server answers this, if only to refuse it.
func (c *client) Knock() (method, address string) {
	return http.MethodHead, c.bucket.address("").String()
}

// CheckLogin implements backends.LoginChecker: it asks for the first name of a listing.
func (c *client) CheckLogin(ctx context.Context) error {
	_, err := c.bucket.listing(ctx, c.bucket.prefix, 1, "")
	return err
}
