// SPDX-License-Identifier: Apache-2.0

// Package sregistrytest is a Singularity Registry Server for tests: the answers
// of the real one as they are recorded in ../testdata/recorded, with its two
// stores, its quotas, and its faults: errors with status 200, views that break
// with 500, names that it does not tell apart, a tag of the library API that is one
// for all collections, an upload of the same bytes that loses them. It must never be
// kinder than the recordings, which a test replays here.
//
// It shares no code with backends/sregistry: what it checks of a request (the
// signature, a presigned URL, a multipart form) is written a second time here.
// The object store listens on another port and so is another origin.
package sregistrytest

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// User and Token log in to every server; so does a stranger, who owns what is
// Foreign.
const (
	User       = "vanessa"
	Token      = "t0k3n-of-vanessa"
	Guest      = "guest"
	GuestToken = "t0k3n-of-guest"
)

// Options say what kind of server it is. The zero value is one with the library
// API and without quotas.
type Options struct {
	NoLibrary   bool          // an old server: every /v1 and /v2 is 404
	NoParts     bool          // uploads in parts are disabled
	RefuseParts bool          // the object store refuses the parts
	PartSize    int64         // of uploads in parts; 0 means 500 MiB
	MaxPage     int           // collections on a page at most, whatever is asked for; 0 means no limit
	ViewLimit   int           // requests to one view, above which it answers 403; 0 means no limit
	Throttle    int           // requests to the API, above which it answers 429; 0 means no limit
	PrivateOnly bool          // the server's own choice for new collections is private
	WeeklyLimit int           // downloads of one container from the old store; 0 means no limit
	Clock       time.Duration // how far the server's clock is off
	Trust       string        // another token that is good
	BadWorker   bool          // bytes are stored wrongly
}

// A Server is one registry server with its object store.
type Server struct {
	URL      string // of the registry server, without "/api"
	StoreURL string // of the object store

	opts   Options
	http   *httptest.Server
	store  *httptest.Server
	bodies *bodytest.Store
	routes []route

	mu          sync.Mutex // guards the fields below
	next        int
	collections map[string]*collection
	containers  []*container
	named       map[string]bool    // names that there were; a search for others is saved
	files       map[string]*object // the server's own store, by path
	objects     map[string]*object // the object store, by key
	uploads     map[string]*upload
	views       map[string]int
	seen        []string
	key         string // with which URLs are presigned
}

type collection struct {
	id      int
	name    string
	owner   string
	private bool
	secret  string
}

type container struct {
	id        int
	in        *collection
	name, tag string
	version   string
	modified  time.Time
	labels    map[string]string
	metadata  dict // what the library API leaves there
	frozen    bool
	path      string // in the server's own store; "" for what came by the library API
	downloads int
}

// key is where the object store has the bytes, if they came by the library API.
func (c *container) key() string {
	version := c.version
	if version == "" {
		version = "None"
	}
	return "/sregistry/" + c.in.name + "/" + c.name + ":" + version
}

type object struct {
	bodytest.Body
	md5, sha string
}

type upload struct {
	container *container
	partSize  int64
	parts     map[int]*object
}

// An Image is what a test puts into the server.
type Image struct {
	Collection, Name, Tag string
	Content               []byte
	Modified              time.Time
	Labels                map[string]string
	Old                   bool // in the old store
	MD5                   bool // the worker has not computed the SHA-256 yet
	NoVersion             bool // nothing was computed yet
	Private               bool // makes the collection private
	Foreign               bool // makes the collection another user's
	Frozen                bool
}

// Start starts a server that ends with the test.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s := &Server{
		opts: opts, bodies: bodytest.Open(tb), routes: routes(), collections: map[string]*collection{}, files: map[string]*object{},
		objects: map[string]*object{}, named: map[string]bool{}, uploads: map[string]*upload{}, views: map[string]int{}, key: "first key",
	}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.store = httptest.NewServer(http.HandlerFunc(s.serveStore))
	s.URL, s.StoreURL = s.http.URL, s.store.URL
	tb.Cleanup(s.http.Close)
	tb.Cleanup(s.store.Close)
	return s
}

// AddCollection puts a collection into the server, unless it is there.
func (s *Server) AddCollection(name, owner string, private bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	col := s.collection(name)
	col.owner, col.private = owner, private
}

// Private reports whether a collection is private; there is one.
func (s *Server) Private(name string) (private, exists bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	col := s.collections[name]
	return col != nil && col.private, col != nil
}

// Add puts an image into the server.
func (s *Server) Add(img Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.collection(img.Collection)
	in.private = in.private || img.Private
	if img.Foreign {
		in.owner = Guest
	}
	c := &container{id: s.id(), in: in, name: img.Name, tag: img.Tag, modified: img.Modified, labels: img.Labels, frozen: img.Frozen}
	o := newObject(s.bodies.Put(img.Content))
	c.version = "sha256." + o.sha
	if img.MD5 {
		c.version = o.md5
	}
	if img.NoVersion {
		c.version = ""
	}
	if old := s.find(in.name, c.name, c.tag); old != nil {
		s.containers = slices.DeleteFunc(s.containers, func(o *container) bool { return o == old })
	}
	if img.Old {
		c.path = filePath(in.name, c.name, c.tag, o.md5)
		s.files[c.path] = o
	} else {
		s.objects[c.key()] = o
	}
	s.append(c)
}

func filePath(in, name, tag, md5 string) string {
	return "/var/www/images/" + in + "/" + path.Base(name+":"+tag+"@"+md5+".sif")
}

func (c *container) fullName() string { return c.in.name + "/" + c.name + ":" + c.tag }

// content is what the server holds of c, nil if nothing. Called with s.mu held.
func (s *Server) content(c *container) *object {
	if c.path != "" {
		return s.files[c.path]
	}
	return s.objects[c.key()]
}

// Work is what the server's worker does after an upload: versions become SHA-256.
func (s *Server) Work() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		if o := s.files[c.path]; o != nil {
			c.version = "sha256." + o.sha
		}
	}
}

// Expire makes every presigned URL useless, as five minutes do.
func (s *Server) Expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key += "+"
}

// Requests returns what was asked: "GET /api/collections/".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// Count returns how many requests began with prefix.
func (s *Server) Count(prefix string) int {
	n := 0
	for _, r := range s.Requests() {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

// Content returns what the server holds under a name, nil if nothing.
func (s *Server) Content(in, name, tag string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(in, name, tag); c != nil {
		if o := s.content(c); o != nil {
			return o.Bytes()
		}
	}
	return nil
}

// Lose deletes the file of an image in the server's own store, and nothing else.
func (s *Server) Lose(in, name, tag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, s.find(in, name, tag).path)
}

// Nameless returns how many images without a name uploads have left.
func (s *Server) Nameless() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.containers {
		if strings.HasPrefix(c.tag, "DUMMY-") {
			n++
		}
	}
	return n
}

// DropNameless is what the server's command cleanup_dummy does.
func (s *Server) DropNameless() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers = slices.DeleteFunc(s.containers, func(c *container) bool { return strings.HasPrefix(c.tag, "DUMMY-") })
}

// Freeze freezes an image.
func (s *Server) Freeze(in, name, tag string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.find(in, name, tag).frozen = true
}

func newObject(body bodytest.Body) *object {
	md5sum, sha := md5.New(), sha256.New()
	body.CopyTo(md5sum, sha)
	return &object{Body: body, md5: hex.EncodeToString(md5sum.Sum(nil)), sha: hex.EncodeToString(sha.Sum(nil))}
}

func (s *Server) id() int {
	s.next++
	return s.next
}

// collection returns that of the name, as the server spells new ones.
func (s *Server) collection(name string) *collection {
	if c := s.collections[name]; c != nil {
		return c
	}
	c := &collection{id: s.id(), name: name, owner: User, private: s.opts.PrivateOnly}
	c.secret = fmt.Sprintf("7f3e2a10-%04d-4c1e-9f00-secretsecret", c.id)
	s.collections[name] = c
	return c
}

var (
	notPlain   = regexp.MustCompile(`[^0-9a-zA-Z]+`)
	extensions = regexp.MustCompile(`[.](img|simg|sif)`)
)

func normalize(name string) string {
	return strings.ToLower(strings.Trim(notPlain.ReplaceAllString(name, "-"), "-"))
}

// parse is the parser of names that the server shares with the sregistry client.
func parse(text string) (collection, name, tag string) {
	text = strings.ToLower(extensions.ReplaceAllString(text, ""))
	text, tag, _ = strings.Cut(text, ":")
	if tag == "" {
		tag = "latest"
	}
	parts := strings.Split(text, "/")
	if n := len(parts); n > 2 || n == 2 && strings.Contains(parts[0], ".") {
		parts = parts[1:] // a registry
	}
	if len(parts) == 1 {
		return "library", parts[0], tag
	}
	return parts[0], parts[len(parts)-1], tag
}

func (s *Server) find(in, name, tag string) *container {
	if !s.named[in+"/"+name+":"+tag] {
		return nil
	}
	for _, c := range s.containers {
		if c.in.name == in && c.name == name && c.tag == tag {
			return c
		}
	}
	return nil
}

// findBuilt is find, and finds what Google Cloud Build has made: container and collection
// are called by both.
func (s *Server) findBuilt(in, name, tag string) *container {
	if c := s.find(in, name, tag); c != nil {
		return c
	}
	return s.find(in+"/"+name, in+"/"+name, tag)
}

func (s *Server) append(c *container) {
	s.named[c.fullName()] = true
	s.containers = append(s.containers, c)
}

// drop deletes a container. Its file goes with it unless another container has it.
func (s *Server) drop(c *container) {
	s.containers = slices.DeleteFunc(s.containers, func(o *container) bool { return o == c })
	if !slices.ContainsFunc(s.containers, func(o *container) bool { return o.path == c.path }) {
		delete(s.files, c.path)
	}
}

// clean deletes the object of c, unless another container has the same version.
func (s *Server) clean(c *container) {
	if !slices.ContainsFunc(s.containers, func(o *container) bool { return o != c && o.version == c.version }) {
		delete(s.objects, c.key())
	}
}

func (s *Server) now() time.Time { return time.Now().Add(s.opts.Clock) }
