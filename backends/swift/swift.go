// SPDX-License-Identifier: Apache-2.0

// Package swift keeps images as objects of an OpenStack Swift account, or of a Ceph gateway that
// speaks its API, under the names that the sregistry client gives them:
//
//	<container>/<rest of the collection…>/<image>:<tag>.sif
//
// ncw/swift logs in (login.go). All other requests are made here: that library has timeouts and
// retries of its own, reads answers of any length, and compares no version. What a path means is
// package files' matter.
//
// Start at [Open]; store.go has the requests, large.go the objects that are made of segments.
package swift

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

var (
	_ backends.Backend      = (*client)(nil)
	_ backends.Lister       = (*client)(nil)
	_ backends.Pusher       = (*client)(nil)
	_ backends.Deleter      = (*client)(nil)
	_ backends.Copier       = (*client)(nil)
	_ backends.Tagger       = (*client)(nil)
	_ backends.Mover        = (*client)(nil)
	_ backends.Sharer       = (*client)(nil)
	_ backends.NameChecker  = (*client)(nil)
	_ backends.Addressed    = (*client)(nil)
	_ backends.Knocker      = (*client)(nil)
	_ backends.LoginChecker = (*client)(nil)
)

// Config is the [remotes.NAME] table of the configuration file for type = "swift".
type Config struct {
	URL  string `toml:"url"`  // where to log in; required unless StorageURL is all that is needed
	Auth string `toml:"auth"` // one of auths; "": the path of URL tells

	Project         string `toml:"project"` // name of the project, once called tenant
	ProjectID       string `toml:"project_id"`
	Domain          string `toml:"domain"` // of the user; default "Default"
	DomainID        string `toml:"domain_id"`
	ProjectDomain   string `toml:"project_domain"` // default: that of the user
	ProjectDomainID string `toml:"project_domain_id"`
	Region          string `toml:"region"`                 // default: the first one that has the service
	Credential      string `toml:"application_credential"` // its id; the secret is its secret

	StorageURL string `toml:"storage_url"` // default: what the login tells
	Container  string `toml:"container"`   // the one that holds all collections; "": each is a container

	TempURLKey string `toml:"temp_url_key"` // for links; default: that of the container, or of the account
	LinkDays   int    `toml:"link_days"`    // how long a link is good; default 7
}

type client struct {
	*files.Reader
	*files.Pusher
	*files.Copier
	*files.Mover
	store *store
}

// A store is the files.Store of an account, or of one container of it.
type store struct {
	login     *login
	container string // as Config.Container
	http      *http.Client
	log       *slog.Logger

	unsaved uploads.Unsaved
	locks   backends.Locks // of paths that are being changed
	known   bounded.Map[string, bool]
	part    int64 // bytes of a segment at least; what is not larger is no large object

	mu     sync.Mutex // guards the field below
	limits *limits    // nil: not asked yet
}

// Type is the backend in the table of backends/all.
var Type = backends.Type{Name: "swift", Open: Open}

const (
	maxObject   = 1024 - 80 // bytes of a name: those of its segments are longer
	rateLimited = 498       // Swift's own status for it
)

// Open is the opener.
//
// Errors: fs.ErrInvalid for settings that cannot be.
func Open(_ context.Context, env backends.Env) (backends.Backend, error) {
	var cfg Config
	if err := env.Decode(&cfg); err != nil {
		return nil, err
	}
	if cfg.URL == "" && cfg.StorageURL == "" {
		cfg, env = fromEnvironment(cfg, env)
	}
	if strings.Contains(cfg.Container, "/") {
		return nil, fmt.Errorf("%w: remote %s: container %q has a slash", fs.ErrInvalid, env.Remote, cfg.Container)
	}
	login, err := newLogin(cfg, env)
	if err != nil {
		return nil, err
	}
	s := &store{login: login, container: cfg.Container, http: env.HTTP, log: env.Logger(), part: partSize}
	r := files.NewReader(s, files.Layout{MaxPath: maxObject})
	p := files.NewPusher(r, s)
	return &client{r, p, files.NewCopier(p, s), files.NewMover(p, s), s}, nil
}

const (
	maxContainer = 256 // bytes
	segments     = "_segments"
)

// hidden reports whether a container holds no images, but what they are made of.
func hidden(container string) bool {
	return strings.HasPrefix(container, ".") || strings.HasSuffix(container, segments)
}

// CheckName implements backends.NameChecker.
func (c *client) CheckName(ref backends.Ref) error {
	if err := c.Reader.CheckName(ref); err != nil {
		return err
	}
	path := c.Path(ref, backends.FormatSIF)
	if !utf8.ValidString(path) {
		return fmt.Errorf("%w: Swift has names in UTF-8 only", fs.ErrInvalid)
	}
	if c.store.container != "" {
		return nil
	}
	switch container, _, ok := strings.Cut(path, "/"); {
	case !ok:
		return fmt.Errorf("%w: an image in Swift is in a collection, which is its container (or set container)", fs.ErrInvalid)
	case len(container) > maxContainer-len(segments):
		return fmt.Errorf("%w: a container with a name of %d bytes (at most %d)", fs.ErrInvalid, len(container), maxContainer-len(segments))
	case hidden(container):
		return fmt.Errorf("%w: containers that end in %q hold the segments of large objects", fs.ErrInvalid, segments)
	}
	return nil
}

// Address implements backends.Addressed.
func (c *client) Address() string { return c.store.login.home.String() }

// Knock implements backends.Knocker.
func (c *client) Knock() (method, address string) { return http.MethodGet, c.Address() }

// CheckLogin implements backends.LoginChecker. An account that may not be looked at as a whole has
// logged in all the same.
func (c *client) CheckLogin(ctx context.Context) error {
	resp, err := c.store.do(ctx, http.MethodHead, object{container: c.store.container}, nil, nil, http.StatusForbidden, http.StatusNotFound)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// An object is where something is in the account: an object, with no name a container, with no
// container the account itself.
type object struct{ container, name string }

// at returns the object of a path.
func (s *store) at(path string) object {
	if s.container != "" {
		return object{s.container, path}
	}
	container, name, _ := strings.Cut(path, "/")
	return object{container, name}
}

// under returns the address of o in an account.
func (o object) under(account *url.URL) *url.URL {
	u := *account
	escaped := account.EscapedPath()
	if o.container != "" {
		u.Path += "/" + o.container
		escaped += "/" + url.PathEscape(o.container)
	}
	if o.name != "" {
		u.Path += "/" + o.name
		escaped += "/" + escapeName(o.name)
	}
	u.RawPath = escaped
	return &u
}

func escapeName(name string) string {
	return strings.ReplaceAll(url.PathEscape(name), "%2F", "/")
}

// do sends a request about o with the login, once more with a newer one if that is refused.
// prepare may be nil; it is called for each try.
//
// Errors: those of httpx.Do.
func (s *store) do(ctx context.Context, method string, o object, query url.Values, prepare func(*http.Request) error, ok ...int) (*http.Response, error) {
	send := func(l *session) (*http.Response, error) {
		u := o.under(l.storage)
		u.RawQuery = query.Encode()
		req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
		}
		if l.token != "" {
			req.Header.Set("X-Auth-Token", l.token)
		}
		// Servers on eventlet send a body after the head of a container or an account, which
		// would be the beginning of the next answer.
		req.Close = method == http.MethodHead && o.name == ""
		if prepare != nil {
			if err := prepare(req); err != nil {
				return nil, err
			}
		}
		resp, err := httpx.Do(s.http, req, append(ok, rateLimited)...)
		if err == nil && resp.StatusCode == rateLimited {
			resp.StatusCode = http.StatusTooManyRequests
			return nil, httpx.Error(resp)
		}
		return resp, err
	}
	now, err := s.login.get(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := send(now)
	if next, ok := s.login.renew(ctx, now, err); ok {
		return send(next)
	}
	return resp, err
}
