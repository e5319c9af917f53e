// SPDX-License-Identifier: Apache-2.0

// Package drive keeps images as files in a folder of a Google Drive, My Drive or a shared
// one, under the names that the sregistry client gives them:
//
//	<collection…>/<image>:<tag>.sif
//
// That is the name of one file, slashes included, as it lies in the root folder. Folders are
// read too: where a folder for the collection is, images go there. Names and pushes are those
// of all stores of files (backends/internal/files). What Drive lacks is here: paths (find.go),
// and a name that only one file can have (commit.go). It is no synchroniser, and shows nothing
// of Google's own documents.
//
// Start at [Open].
package drive

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
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
	_ backends.Sharer        = (*client)(nil)
	_ backends.Watcher       = (*client)(nil)
	_ backends.NameChecker   = (*client)(nil)
	_ backends.LoginChecker  = (*client)(nil)
	_ backends.LoopbackLogin = (*client)(nil)
	_ backends.Knocker       = (*client)(nil)
	_ backends.Addressed     = (*client)(nil)
)

// scope is what a login has to allow. The narrower drive.file shows only what the same app
// has made, and so nothing that another program has pushed.
const scope = "https://www.googleapis.com/auth/drive"

// Config is the [remotes.NAME] table of the configuration file for
// type = "google-drive".
type Config struct {
	// URL is scheme, host and port of what stands in for Google: a proxy, a test server. All
	// requests go there. The default is Google's own hosts.
	URL string `toml:"url"`
	// Root is the folder with the images, by its path; "/" is the whole drive. The default is
	// that of the sregistry client, "sregistry".
	Root *string `toml:"root"`
	// RootID is its id instead, as it stands in the address of its page.
	RootID string `toml:"root_id"`
	// SharedDrive is the id of the shared drive that Root is in; the default is My Drive.
	SharedDrive string `toml:"shared_drive"`

	// Credentials, ClientID, ClientSecret and ClientFile are as in google.Options.
	Credentials  string `toml:"credentials"`
	ClientID     string `toml:"client_id"`
	ClientSecret string `toml:"client_secret"`
	ClientFile   string `toml:"client_file"`
}

const (
	defaultRoot = "sregistry"
	// rootTime is for how long the id of the root folder is believed.
	rootTime = time.Minute
)

type client struct {
	*files.Reader
	*files.Pusher
	*files.Mover
	*files.Copier
	*google.Login

	remote string
	home   *url.URL
	drive  string   // id of the shared drive; "" is My Drive
	rootID string   // "" if it has to be found
	root   []string // names of folders
	log    *slog.Logger

	piece int64         // bytes that one request of an upload carries, a multiple of 256 KiB
	poll  time.Duration // between two questions for changes, or for what became of a rival

	commits chan struct{}              // held by the one change of names under way
	unsaved uploads.Unsaved            // uploads that were broken off
	swept   sync.Once                  // what dead uploads have left
	warned  bounded.Map[string, bool]  // paths of which there are several
	headed  bounded.Map[string, bool]  // ids of files whose revisions are not for us
	seen    bounded.Map[string, place] // by id

	mu    sync.Mutex // guards the fields below
	found string     // id of the root folder
	since time.Time
}

// A place is where something was when it was last seen.
type place struct {
	path    string
	folder  bool
	outside bool // it is not below the root
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "google-drive", Open: Open}

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	c := &client{
		remote: env.Remote, drive: cfg.SharedDrive, rootID: cfg.RootID, log: env.Logger(), commits: make(chan struct{}, 1),
		piece: pieceSize, poll: pollTime,
	}
	opts := google.Options{
		Scopes: []string{scope}, Credentials: cfg.Credentials, ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, ClientFile: cfg.ClientFile,
	}
	var err error
	if c.home, err = parseURL(cfg.URL); err == nil {
		c.root, err = parseRoot(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("remote %s: %w", env.Remote, err)
	}
	if cfg.URL != "" {
		opts.Base = c.home
	}
	if c.Login, err = google.New(env, opts); err != nil {
		return nil, err
	}
	c.seen.Max = 100_000
	s := &store{c}
	c.Reader = files.NewReader(s, files.Layout{})
	c.Pusher = files.NewPusher(c.Reader, s)
	c.Mover = files.NewMover(c.Pusher, s)
	c.Copier = files.NewCopier(c.Pusher, s)
	return c, nil
}

// A store is the protocol, for package files.
type store struct{ *client }

var (
	_ files.Duplicator = (*store)(nil)
	_ files.Renamer    = (*store)(nil)
)

func parseURL(s string) (*url.URL, error) {
	if s == "" {
		s = "https://www.googleapis.com"
	}
	u, err := httpx.Address(s, "/drive/v3")
	if err == nil && u.Path != "" {
		err = fmt.Errorf("%w: url %q has more than a host (a folder is said by root)", fs.ErrInvalid, backends.Redact(s))
	}
	return u, err
}

func parseRoot(cfg Config) ([]string, error) {
	for _, id := range []string{cfg.RootID, cfg.SharedDrive} {
		if strings.ContainsAny(id, "/'\\ ") {
			return nil, fmt.Errorf("%w: %q is no id (it is what follows the last \"/\" of the page's address)", fs.ErrInvalid, id)
		}
	}
	if cfg.Root == nil {
		if cfg.RootID != "" {
			return nil, nil
		}
		return []string{defaultRoot}, nil
	}
	if cfg.RootID != "" {
		return nil, fmt.Errorf("%w: root and root_id exclude each other", fs.ErrInvalid)
	}
	root := strings.Trim(*cfg.Root, "/")
	if root == "" {
		return nil, nil
	}
	parts := strings.Split(root, "/")
	for _, part := range parts {
		if part == "" || part == "." || part == ".." || strings.ContainsRune(part, 0) {
			return nil, fmt.Errorf("%w: root %q", fs.ErrInvalid, root)
		}
	}
	return parts, nil
}

// Address implements backends.Addressed.
func (c *client) Address() string { return c.home.Scheme + "://" + c.home.Host }

// Knock implements backends.Knocker.
func (c *client) Knock() (method, address string) {
	return http.MethodGet, c.address("about", url.Values{"fields": {"user"}})
}

// CheckLogin implements backends.LoginChecker.
func (c *client) CheckLogin(ctx context.Context) error {
	var about struct{ Kind string }
	if err := c.call(ctx, http.MethodGet, "about", url.Values{"fields": {"kind,user"}}, nil, &about); err != nil {
		return err
	}
	return isKind(about.Kind, "drive#about")
}
