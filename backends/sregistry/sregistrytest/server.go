// SPDX-License-Identifier: Apache-2.0

// Package sregistrytest is a Singularity Registry Server for tests: the answers
// of the real one as they were recorded, with its two stores, its quotas, and
// its faults (errors with status 200, views that break with 500).
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
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// User and Token log in to every server.
const (
	User  = "vanessa"
	Token = "t0k3n-of-vanessa"
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
	named       map[string]bool // names that there were; a search for others is saved
	objects     map[string]*object
	uploads     map[string]*upload
	views       map[string]int
	seen        []string
	key         string // with which URLs are presigned
}

type collection struct {
	id      int
	name    string
	private bool
	secret  string
}

type container struct {
	id        int
	in        *collection
	name, tag string
	version   string
	sum       string // sha256, hex
	modified  time.Time
	labels    map[string]string
	frozen    bool
	object    *object
	key       string // in the object store; "" in the old one
	downloads int
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
	Frozen                bool
}

// Start starts a server that ends with the test.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	s := &Server{
		opts: opts, bodies: bodytest.Open(tb), routes: routes(), collections: map[string]*collection{}, objects: map[string]*object{},
		named: map[string]bool{}, uploads: map[string]*upload{}, views: map[string]int{}, key: "first key",
	}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.store = httptest.NewServer(http.HandlerFunc(s.serveStore))
	s.URL, s.StoreURL = s.http.URL, s.store.URL
	tb.Cleanup(s.http.Close)
	tb.Cleanup(s.store.Close)
	return s
}

// Add puts an image into the server.
func (s *Server) Add(img Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.collection(img.Collection)
	in.private = in.private || img.Private
	c := &container{id: s.id(), in: in, name: img.Name, tag: img.Tag, modified: img.Modified, labels: img.Labels, frozen: img.Frozen}
	c.object = newObject(s.bodies.Put(img.Content))
	c.sum = c.object.sha
	c.version = "sha256." + c.sum
	if img.MD5 {
		c.version = c.object.md5
	}
	if img.NoVersion {
		c.version = ""
	}
	if !img.Old {
		c.key = fmt.Sprintf("/%s/%d.sif", in.name, c.id)
		s.objects[c.key] = c.object
	}
	if s.named[c.fullName()] {
		s.replace(c)
		return
	}
	s.named[c.fullName()] = true
	s.containers = append(s.containers, c)
}

func (c *container) fullName() string { return c.in.name + "/" + c.name + ":" + c.tag }

// Work is what the server's worker does after an upload: versions become SHA-256.
func (s *Server) Work() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.containers {
		if c.object != nil {
			c.version = "sha256." + c.object.sha
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
	c := s.find(in, name, tag)
	if c == nil || c.object == nil {
		return nil
	}
	return c.object.Bytes()
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
	c := &collection{id: s.id(), name: name}
	c.secret = fmt.Sprintf("7f3e2a10-%04d-4c1e-9f00-secretsecret", c.id)
	s.collections[name] = c
	return c
}

var notPlain = regexp.MustCompile(`[^0-9a-zA-Z]+`)

func normalize(name string) string {
	return strings.ToLower(strings.Trim(notPlain.ReplaceAllString(name, "-"), "-"))
}

func (s *Server) find(in, name, tag string) *container {
	for _, c := range s.containers {
		if c.in.name == in && c.name == name && c.tag == tag {
			return c
		}
	}
	return nil
}

// replace puts c in the place of what has its name.
func (s *Server) replace(c *container) {
	s.named[c.fullName()] = true
	s.containers = slices.DeleteFunc(s.containers, func(o *container) bool {
		return o != c && o.in == c.in && o.name == c.name && o.tag == c.tag
	})
	if !slices.Contains(s.containers, c) {
		s.containers = append(s.containers, c)
	}
}

func (s *Server) now() time.Time { return time.Now().Add(s.opts.Clock) }
