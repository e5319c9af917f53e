// SPDX-License-Identifier: Apache-2.0

// Package librarytest is a Sylabs library for tests: what api/server/openapi.yml of
// github.com/sylabs/scs-library-client says, with the parts of the protocol that
// only the sources of that client tell (version 2 of uploads and tags,
// oci-redirect).
//
// Its bytes are where a real one has them: in an S3 server ([StartStore]), in an OCI
// registry (package ocitest), or in itself. Every request and every answer is
// compared with a table of the specification (spec.go): what is not in it fails the
// test. It shares no code with backends/library.
package librarytest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// User has the token Token at every server.
const (
	User  = "vanessa"
	Token = "t0k3n-of-vanessa"
)

// Options say what kind of server it is. The zero value is one of API version
// 2.0.0-alpha.2 that keeps the bytes itself and takes them in one request.
type Options struct {
	APIVersion string // "none" is a server without /version
	Store      *Store // where the bytes go, by presigned URLs; nil is the server itself
	Found      bool   // redirects with 302, as Singularity Registry Server does, and not with 303
	Stream     bool   // sends only whole images, where it sends them itself
	NoHashFile bool   // sends images by their tags alone
	NoParts    bool   // takes no uploads in parts
	PartSize   int64  // of uploads in parts; 0 means 8 MiB
	NoSums     bool   // tells clients that its store takes no sums of parts
	BareTags   bool   // finds containers without telling their tags
	Life       time.Duration

	// Registry, if not nil, is behind the library, and everything is there, below
	// Prefix. With Tokens it wants those of its token service.
	Registry *ocitest.Registry
	Prefix   string
	Tokens   bool
}

// A Server is one library.
type Server struct {
	URL string

	tb     testing.TB
	opts   Options
	http   *httptest.Server
	bodies *bodytest.Store
	below  string // what the keys of its objects begin with

	mu       sync.Mutex // guards the fields below
	next     int
	tokens   map[string]bool // that it takes
	entities []*entity
	uploads  map[string]*image // by upload id
	seen     []Request
	spoil    int // how many tokens for the registry will be no good
	scans    map[string]*scan
}

// A Request is one that reached the server.
type Request struct {
	Method, Path, Query, Authorization string
}

type entity struct {
	id, name    string
	collections []*collection
}

type collection struct {
	id, name   string
	in         *entity
	private    bool // nobody without a token may see it
	hidden     bool // nobody may
	containers []*container
}

type container struct {
	id, name string
	in       *collection
	images   []*image
	tags     map[string]map[string]*image // by architecture and name
}

type image struct {
	id, hash    string
	in          *container
	arch        string
	description string
	signers     []string
	encrypted   bool
	created     time.Time
	size        int64
	uploaded    bool
	body        bodytest.Body // if the server keeps it itself
	key         string        // in the store
}

// An Image is what a test puts into the server.
type Image struct {
	Entity, Collection, Container, Tag string
	Arch                               string // "" means amd64
	Content                            []byte
	Created                            time.Time
	Description                        string
	Signers                            []string
	Encrypted                          bool
	Private, Hidden                    bool // make the collection so
}

// Start starts a server that ends with the test.
func Start(tb testing.TB, opts Options) *Server {
	tb.Helper()
	if opts.APIVersion == "" {
		opts.APIVersion = "2.0.0-alpha.2"
	}
	if opts.PartSize == 0 {
		opts.PartSize = 8 << 20
	}
	if opts.Life == 0 {
		opts.Life = 5 * time.Minute
	}
	s := &Server{tb: tb, opts: opts, bodies: bodytest.Open(tb), tokens: map[string]bool{Token: true}, uploads: map[string]*image{}, scans: map[string]*scan{}}
	if opts.Store != nil {
		s.below = fmt.Sprintf("library%d/", opts.Store.servers.Add(1))
	}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.http.URL
	tb.Cleanup(s.http.Close)
	return s
}

// Add puts an image into the server.
func (s *Server) Add(img Image) {
	s.tb.Helper()
	if img.Arch == "" {
		img.Arch = "amd64"
	}
	if s.opts.Registry != nil {
		s.addToRegistry(img)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.container(img.Entity, img.Collection, img.Container)
	k.in.private, k.in.hidden = k.in.private || img.Private, k.in.hidden || img.Hidden
	sum := hashOf(img.Content)
	i := slices.IndexFunc(k.images, func(m *image) bool { return m.hash == sum })
	if i < 0 {
		m := &image{
			id: s.id(), hash: sum, in: k, arch: img.Arch, description: img.Description, signers: img.Signers, encrypted: img.Encrypted,
			created: img.Created, size: int64(len(img.Content)), uploaded: true,
		}
		m.key = s.below + m.id
		s.keep(m, s.bodies.Put(img.Content))
		k.images = append(k.images, m)
		i = len(k.images) - 1
	}
	k.tag(img.Arch, img.Tag, k.images[i])
}

func hashOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256." + hex.EncodeToString(sum[:])
}

func (k *container) tag(arch, tag string, m *image) {
	if k.tags == nil {
		k.tags = map[string]map[string]*image{}
	}
	if k.tags[arch] == nil {
		k.tags[arch] = map[string]*image{}
	}
	k.tags[arch][tag] = m
}

// SetTokens makes the server take these tokens alone.
func (s *Server) SetTokens(tokens ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = map[string]bool{}
	for _, token := range tokens {
		s.tokens[token] = true
	}
}

// SpoilTokens makes the next n tokens for the registry useless, as their end does.
func (s *Server) SpoilTokens(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil = n
}

// Requests returns what was asked.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// Forget empties the log.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
}

// Count returns how many requests began with prefix ("GET /v1/images/").
func (s *Server) Count(prefix string) int {
	n := 0
	for _, r := range s.Requests() {
		if strings.HasPrefix(r.Method+" "+r.Path, prefix) {
			n++
		}
	}
	return n
}

func (s *Server) id() string {
	s.next++
	return fmt.Sprintf("5b9e91c694feb900016e%04x", s.next)
}

func (s *Server) entity(name string) *entity {
	if e := s.findEntity(name); e != nil {
		return e
	}
	e := &entity{id: s.id(), name: name}
	s.entities = append(s.entities, e)
	return e
}

func (s *Server) collection(in, name string) *collection {
	if c := s.findCollection(in + "/" + name); c != nil {
		return c
	}
	e := s.entity(in)
	c := &collection{id: s.id(), name: name, in: e}
	e.collections = append(e.collections, c)
	return c
}

func (s *Server) container(in, of, name string) *container {
	if k := s.findContainer(in + "/" + of + "/" + name); k != nil {
		return k
	}
	c := s.collection(in, of)
	k := &container{id: s.id(), name: name, in: c}
	c.containers = append(c.containers, k)
	return k
}

// The find functions take an id or a name, as the library does.
func (s *Server) findEntity(ref string) *entity {
	for _, e := range s.entities {
		if e.id == ref || e.name == ref {
			return e
		}
	}
	return nil
}

func (s *Server) findCollection(ref string) *collection {
	for _, e := range s.entities {
		for _, c := range e.collections {
			if c.id == ref || named(ref, e.name, c.name) {
				return c
			}
		}
	}
	return nil
}

func (s *Server) findContainer(ref string) *container {
	for _, e := range s.entities {
		for _, c := range e.collections {
			for _, k := range c.containers {
				if k.id == ref || named(ref, e.name, c.name, k.name) {
					return k
				}
			}
		}
	}
	return nil
}

// named reports whether ref is the names, joined by slashes.
func named(ref string, names ...string) bool {
	for i, name := range names {
		if i > 0 {
			name = "/" + name
		}
		rest, ok := strings.CutPrefix(ref, name)
		if !ok {
			return false
		}
		ref = rest
	}
	return ref == ""
}

func (s *Server) findImage(id string) *image {
	for _, e := range s.entities {
		for _, c := range e.collections {
			for _, k := range c.containers {
				for _, m := range k.images {
					if m.id == id {
						return m
					}
				}
			}
		}
	}
	return nil
}

// under returns what a container has under a tag or a hash.
func (k *container) under(ref, arch string) *image {
	if k == nil {
		return nil
	}
	if strings.HasPrefix(ref, "sha256.") {
		for _, m := range k.images {
			if m.hash == ref {
				return m
			}
		}
		return nil
	}
	return k.tags[arch][ref]
}
