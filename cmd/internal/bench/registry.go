// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	configType = "application/vnd.sylabs.sif.config.v1+json"
	layerType  = "application/vnd.sylabs.sif.layer.v1.sif"
)

// An image is a file with the manifest that Apptainer and ORAS write for it. One
// that was pushed has no path; a pushed blob has no repository either.
type image struct {
	repo, tag string
	path      string
	size      int64
	digest    digest.Digest // of the file
	manifest  []byte
}

// newImage makes an image of the file at path.
func newImage(repo, tag, path string) *image {
	f := must(os.Open(path))
	defer f.Close()
	size := must(f.Stat()).Size()
	img := &image{repo: repo, tag: tag, path: path, size: size, digest: must(digest.FromReader(f))}
	img.manifest = manifestOf(img.digest, size, map[string]string{ocispec.AnnotationTitle: filepath.Base(repo) + "_" + tag + ".sif"})
	return img
}

// manifestOf returns the manifest of a SIF.
func manifestOf(d digest.Digest, size int64, annotations map[string]string) []byte {
	var m ocispec.Manifest
	m.SchemaVersion, m.MediaType = 2, ocispec.MediaTypeImageManifest
	m.Config = ocispec.Descriptor{MediaType: configType, Digest: digest.FromString("{}"), Size: 2}
	m.Layers = []ocispec.Descriptor{{MediaType: layerType, Digest: d, Size: size, Annotations: annotations}}
	return must(json.Marshal(m))
}

// writeImage writes size bytes that do not compress, nor are all zero: the same
// for the same seed.
func writeImage(file string, size int64, seed byte) {
	check(os.MkdirAll(filepath.Dir(file), 0o755))
	f := must(os.Create(file))
	defer f.Close()
	must(io.CopyN(f, rand.NewChaCha8([32]byte{seed}), size))
	check(f.Sync())
}

// randomImage makes an image that does not compress, in a directory of its own.
func (b *bench) randomImage(repo, tag string, size int64, seed byte) *image {
	file := filepath.Join(b.temp("image-"), "image")
	writeImage(file, size, seed)
	return newImage(repo, tag, file)
}

// A registry answers as an OCI registry does that needs no login, and as a plain
// web server below /files/, where each image is a file. All that it sends goes
// over its link and is counted. Blobs are sent by the kernel from files that are
// in its page cache, at some GB/s.
type registry struct {
	*httptest.Server
	link  link
	dir   string       // each image is a symbolic link here
	files http.Handler // of dir
	// listed is repositories, and how many tags of each are only listed. It is
	// complete before anything is asked.
	listed map[string]int

	mu      sync.Mutex // guards the fields below
	images  []*image   // also those that were pushed
	uploads []*upload
	log     []*request // in the order of their coming
}

// An upload is a blob on its way here: it is hashed and not kept.
type upload struct {
	hash.Hash
	size int64
}

type connKey struct{}

// newRegistry starts a registry without images. The caller closes it.
func (b *bench) newRegistry() *registry {
	r := &registry{dir: b.temp("files-"), listed: map[string]int{}}
	r.files = http.StripPrefix("/files/", http.FileServer(http.Dir(r.dir)))
	r.Server = httptest.NewUnstartedServer(r)
	r.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	r.Listener = &linkListener{Listener: r.Listener, link: &r.link}
	r.Start()
	return r
}

// hangUp closes the connections on which nothing is going on, and gives their
// clients a moment to notice.
func (r *registry) hangUp() {
	r.Config.SetKeepAlivesEnabled(false)
	r.Config.SetKeepAlivesEnabled(true)
	time.Sleep(50 * time.Millisecond)
}

// add makes img known under its repository and tag.
func (r *registry) add(img *image) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images, r.listed[img.repo] = append(r.images, img), 0
	name := filepath.Join(r.dir, img.repo, img.tag+".sif")
	check(os.MkdirAll(filepath.Dir(name), 0o755))
	check(os.Symlink(img.path, name))
}

func (r *registry) blobURL(img *image) string {
	return r.URL + "/v2/" + img.repo + "/blobs/" + string(img.digest)
}

// find returns an image that is as wanted, or nil.
func (r *registry) find(want func(*image) bool) *image {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.images, want); i >= 0 {
		return r.images[i]
	}
	return nil
}

// route takes a path of the distribution specification, version 1.1, apart:
// repository, kind and what follows.
var route = regexp.MustCompile(`^/v2/(.+)/(tags|manifests|blobs|uploads)/([^/]*)$`)

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.note(req)
	m := append(route.FindStringSubmatch(req.URL.Path), "", "", "", "")
	repo, kind, last := m[1], m[2], m[3]
	reads := req.Method == http.MethodGet || req.Method == http.MethodHead
	w.Header().Set("Content-Type", "application/octet-stream")
	switch {
	case strings.HasPrefix(req.URL.Path, "/files/"):
		r.files.ServeHTTP(w, req)
	case req.URL.Path == "/v2/":
		answer(w, map[string]any{})
	case req.URL.Path == "/v2/_catalog":
		answer(w, map[string]any{"repositories": slices.Sorted(maps.Keys(r.listed))})
	case kind == "tags" && last == "list":
		r.tags(w, req, repo)
	case kind == "manifests" && reads:
		r.manifest(w, repo, last)
	case kind == "blobs" && reads:
		r.blob(w, req, digest.Digest(last))
	case kind == "manifests" && req.Method == http.MethodPut:
		body, err := io.ReadAll(req.Body)
		if err == nil { // else nobody waits for the answer
			r.created(w, &image{repo: repo, tag: last, manifest: body}, digest.FromBytes(body))
		}
	case kind == "uploads" && req.Method == http.MethodPost:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.uploads = append(r.uploads, &upload{Hash: sha256.New()})
		w.Header().Set("Location", fmt.Sprintf("/v2/%s/uploads/%d", repo, len(r.uploads)-1))
		w.WriteHeader(http.StatusAccepted)
	case kind == "uploads":
		r.receive(w, req, last)
	default:
		http.NotFound(w, req)
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked may have gone
}

// tags writes a page of tags that are only listed, and where the next one is, or
// all those of images, which are few.
func (r *registry) tags(w http.ResponseWriter, req *http.Request, repo string) {
	query, first, end, tags := req.URL.Query(), 0, r.listed[repo], []string{}
	r.find(func(img *image) bool {
		if img.repo == repo {
			tags = append(tags, img.tag)
		}
		return false
	})
	if last, err := strconv.Atoi(strings.TrimPrefix(query.Get("last"), "tag")); err == nil {
		first = last + 1
	}
	if n, err := strconv.Atoi(query.Get("n")); err == nil && n > 0 && first+n < end {
		end = first + n
		w.Header().Set("Link", fmt.Sprintf("</v2/%s/tags/list?n=%d&last=%s>; rel=\"next\"", repo, n, tagName(end-1)))
	}
	for i := first; i < end; i++ {
		tags = append(tags, tagName(i))
	}
	slices.Sort(tags)
	answer(w, map[string]any{"name": repo, "tags": tags})
}

func tagName(i int) string { return fmt.Sprintf("tag%07d", i) }

// manifest writes the manifest of an image, or of a SIF of 1 GiB, of which there
// is no blob, for a tag that is only listed.
func (r *registry) manifest(w http.ResponseWriter, repo, reference string) {
	img := r.find(func(img *image) bool {
		return img.repo == repo && (img.tag == reference || string(digest.FromBytes(img.manifest)) == reference)
	})
	var text []byte
	switch {
	case img != nil:
		text = img.manifest
	case r.listed[repo] > 0 && strings.HasPrefix(reference, "tag"):
		text = manifestOf(digest.FromString(repo+"/"+reference), 1<<30, nil)
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
	w.Header().Set("Docker-Content-Digest", string(digest.FromBytes(text)))
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text)
}

func (r *registry) blob(w http.ResponseWriter, req *http.Request, d digest.Digest) {
	img := r.find(func(img *image) bool { return img.digest == d })
	switch {
	case img == nil:
		w.WriteHeader(http.StatusNotFound)
	case img.path == "": // pushed, and not kept
		w.Header().Set("Content-Length", strconv.FormatInt(img.size, 10))
	default:
		w.Header().Set("Docker-Content-Digest", string(d))
		w.Header().Set("Etag", strconv.Quote(string(d)))
		http.ServeFile(w, req, img.path)
	}
}

// receive takes a piece of a blob, and with PUT the last one. One client at a
// time sends the pieces of an upload. Blobs are forgotten but for their size:
// somebody who pushed can look whether they are there.
func (r *registry) receive(w http.ResponseWriter, req *http.Request, id string) {
	r.mu.Lock()
	var in *upload
	if i, err := strconv.Atoi(id); err == nil && i < len(r.uploads) {
		in = r.uploads[i]
	}
	r.mu.Unlock()
	if in == nil {
		http.NotFound(w, req)
		return
	}
	n, err := io.CopyBuffer(in, req.Body, make([]byte, 256<<10))
	in.size += n
	d := digest.NewDigest(digest.SHA256, in)
	last := req.Method == http.MethodPut
	w.Header().Set("Location", req.URL.Path)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(in.size-1, 0)))
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	case !last:
		w.WriteHeader(http.StatusAccepted)
	case string(d) != req.URL.Query().Get("digest"):
		http.Error(w, "these bytes have the digest "+string(d), http.StatusBadRequest)
	default:
		r.created(w, &image{size: in.size, digest: d}, d)
	}
}

func (r *registry) created(w http.ResponseWriter, img *image, d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = append(r.images, img)
	w.Header().Set("Docker-Content-Digest", string(d))
	w.WriteHeader(http.StatusCreated)
}

// pushed reports whether a tag of a repository was pushed, and forgets all that
// was.
func (r *registry) pushed(repo, tag string) bool {
	img := r.find(func(img *image) bool { return img.repo == repo && img.tag == tag })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = slices.DeleteFunc(r.images, func(img *image) bool { return img.path == "" })
	return img != nil
}

// A request is one that the registry was asked.
type request struct {
	at       time.Time
	what     string // number of its connection with "+" if it is the first one there, method, path and range
	blob     bool   // it is for the bytes of an image
	exchange *exchange
}

func (r *registry) note(req *http.Request) {
	c, name, plus := req.Context().Value(connKey{}).(*linkConn), req.URL.Path, " "
	q := &request{at: time.Now(), exchange: new(exchange), blob: strings.Contains(name, "/blobs/") || strings.HasPrefix(name, "/files/")}
	if c.now.Swap(q.exchange) == nil {
		plus = "+"
	}
	q.what = fmt.Sprintf("%4d%s %s %s %s", c.id, plus, req.Method, name, req.Header.Get("Range"))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, q)
}

// forget empties the log.
func (r *registry) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = nil
}

// sent returns how many bytes were sent since forget in answer to requests for
// the bytes of images, with their headers.
func (r *registry) sent() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.log {
		if q.blob {
			n += q.exchange.sent.Load()
		}
	}
	return n
}

// printTimeline writes a line for each request since forget: when it came, was
// answered first and last (milliseconds since start; -1: never), and what it was.
func (r *registry) printTimeline(w io.Writer, start time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(w, "    came ms    first     last        sent  conn  request")
	for _, q := range r.log {
		since := func(nano *atomic.Int64) float64 { return max(-1, ms(time.Unix(0, nano.Load()).Sub(start))) }
		e := q.exchange
		fmt.Fprintf(w, "  %9.1f %8.1f %8.1f %11d %s\n", ms(q.at.Sub(start)), since(&e.first), since(&e.last), e.sent.Load(), q.what)
	}
}
