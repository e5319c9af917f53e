// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"cmp"
	"context"
	_ "crypto/sha512" // for go-digest, as is sha256
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// The media types of a SIF in a registry. Singularity before 3.7 had a typing
// error in that of the layer; what it pushed is still there.
const (
	sifConfig    = "application/vnd.sylabs.sif.config.v1+json"
	sifLayer     = "application/vnd.sylabs.sif.layer.v1.sif"
	sifLayerOld  = "appliciation/vnd.sylabs.sif.layer.tar"
	dockerImage  = "application/vnd.docker.distribution.manifest.v2+json"
	dockerIndex  = "application/vnd.docker.distribution.manifest.list.v2+json"
	acceptHeader = ocispec.MediaTypeImageManifest + ", " + ocispec.MediaTypeImageIndex + ", " + dockerImage + ", " + dockerIndex
)

// maxDepth is how many indexes may stand in each other.
const maxDepth = 4

// A manifest is the bytes that a tag or digest leads to.
type manifest struct {
	digest    string
	mediaType string
	body      []byte
	modified  time.Time // Last-Modified
}

// A document is a manifest or an index: which one, its fields tell.
type document struct {
	Manifests   []ocispec.Descriptor `json:"manifests"`
	Layers      []ocispec.Descriptor `json:"layers"`
	Annotations map[string]string    `json:"annotations"`

	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        json.RawMessage `json:"config"`
}

// isNothing reports whether a document has nothing that any manifest has.
func (d document) isNothing() bool {
	return d.SchemaVersion == 0 && d.MediaType == "" && d.Config == nil && d.Layers == nil && d.Manifests == nil
}

// A found is an image and what its tag leads to first: its manifest, or an
// index above it.
type found struct {
	top string // a digest; "" if there is nothing
	img backends.Image
	err error // errors.ErrUnsupported if top is no image
	at  time.Time
}

// head asks for the digest of what reference leads to.
func (c *client) head(ctx context.Context, repo, reference string) (digest string, err error) {
	m, err := c.look(ctx, repo, reference)
	return m.digest, err
}

// look asks what reference leads to, for all but its body. Some registries and
// proxies refuse a HEAD, or say that there is nothing: only what a GET says counts.
func (c *client) look(ctx context.Context, repo, reference string) (manifest, error) {
	req, err := c.request(ctx, http.MethodHead, "/v2/"+repo+"/manifests/"+reference, nil)
	if err != nil {
		return manifest{}, err
	}
	req.Header.Set("Accept", acceptHeader)
	resp, err := c.do(req)
	if err == nil {
		resp.Body.Close()
		if digest := resp.Header.Get("Docker-Content-Digest"); isDigest(digest) {
			mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
			return manifest{digest: digest, mediaType: mediaType}, nil
		}
	} else if !httpx.HeadRefused(err) || c.manifests.closed(repo) {
		return manifest{}, err
	}
	m, err := c.get(ctx, repo, reference)
	if err == nil {
		c.store.keep(repo, reference, m)
	} else if errors.Is(err, fs.ErrPermission) {
		c.manifests.close(repo)
	}
	return m, err
}

// fetch gets a manifest and checks it against the digest that was asked for or
// that the registry names. One that is here already by its digest is not asked
// for: who has to know whether it is still there asks head before.
func (c *client) fetch(ctx context.Context, repo, reference string) (manifest, error) {
	if m, ok := c.store.manifest(repo, reference); ok {
		return m, nil
	}
	m, err := c.get(ctx, repo, reference)
	if err == nil {
		c.store.keep(repo, reference, m)
	}
	return m, err
}

// get is fetch from the registry.
func (c *client) get(ctx context.Context, repo, reference string) (manifest, error) {
	req, err := c.request(ctx, http.MethodGet, "/v2/"+repo+"/manifests/"+reference, nil)
	if err != nil {
		return manifest{}, err
	}
	req.Header.Set("Accept", acceptHeader)
	resp, err := c.do(req)
	if err != nil {
		return manifest{}, err
	}
	defer resp.Body.Close()
	body, err := httpx.ReadAll(resp.Body)
	if err != nil {
		return manifest{}, err
	}
	m := manifest{body: body, digest: digest.FromBytes(body).String()}
	m.mediaType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	m.modified, _ = http.ParseTime(resp.Header.Get("Last-Modified"))
	want := reference
	if !isDigest(want) {
		want = resp.Header.Get("Docker-Content-Digest")
	}
	if want == "" {
		return m, nil
	}
	if !isDigest(want) || digest.Digest(want).Algorithm().FromBytes(body).String() != want {
		return manifest{}, fmt.Errorf("%w: manifest %s has the digest %s", backends.ErrCorrupt, want, m.digest)
	}
	m.digest = want
	return m, nil
}

// resolve finds the image that reference, a tag or a manifest's digest, leads
// to. A manifest that was seen before is not fetched again. If there is no
// image for arch at the end, found.top is set all the same.
func (c *client) resolve(ctx context.Context, repo, reference, arch string) (found, error) {
	target := reference
	if c.manifests.tag(repo, reference) || c.store.has(repo, reference) {
		top, err := c.head(ctx, repo, reference)
		if err != nil {
			return found{}, err
		}
		if f, ok := c.manifests.image(repo, top, arch); ok {
			c.manifests.add(repo, reference, arch, f)
			return f, f.err
		}
		target = top
	}
	m, err := c.fetch(ctx, repo, target)
	if err != nil {
		return found{}, err
	}
	f := found{top: m.digest, at: time.Now()}
	f.img, f.err = c.image(ctx, repo, m, arch)
	if f.err == nil || errors.Is(f.err, errors.ErrUnsupported) {
		c.manifests.add(repo, reference, arch, f)
		c.store.keepKind(repo, f.img.Format)
	}
	return f, f.err
}

// image reads the image out of m, going down through indexes.
func (c *client) image(ctx context.Context, repo string, m manifest, arch string) (backends.Image, error) {
	for range maxDepth {
		var doc document
		if err := httpx.JSON(bytes.NewReader(m.body), &doc); err != nil {
			return backends.Image{}, err
		}
		switch {
		case len(doc.Manifests) > 0 && len(doc.Layers) > 0:
			// One document, two meanings: CVE-2021-41190.
			return backends.Image{}, fmt.Errorf("%w: manifest %s is an index too", backends.ErrBadAnswer, m.digest)
		case doc.isNothing():
			return backends.Image{}, fmt.Errorf("%w: JSON that is no manifest", backends.ErrBadAnswer)
		case len(doc.Manifests) == 0:
			return c.imageOf(m, doc)
		}
		child, err := choose(doc.Manifests, arch)
		if err != nil {
			return backends.Image{}, err
		}
		if !isDigest(child) {
			return backends.Image{}, fmt.Errorf("%w: index with the digest %q", backends.ErrBadAnswer, child)
		}
		if m, err = c.fetch(ctx, repo, child); err != nil {
			return backends.Image{}, err
		}
	}
	return backends.Image{}, fmt.Errorf("%w: indexes nested more than %d deep", backends.ErrBadAnswer, maxDepth)
}

// imageOf reads a manifest as an image: a SIF, or else a container image, which
// is shown as an archive of its blobs.
func (c *client) imageOf(m manifest, doc document) (backends.Image, error) {
	img := backends.Image{Version: m.digest, Modified: m.modified}
	for _, name := range []string{ocispec.AnnotationCreated, annotationModified} {
		if t, err := time.Parse(time.RFC3339, doc.Annotations[name]); err == nil {
			img.Modified = t
		}
	}
	if !isSIF(doc) {
		a, err := archive.New(m.body)
		if err != nil {
			return backends.Image{}, err
		}
		c.archives.put(m.digest, a)
		img.Format, img.Size, img.Digest, img.Labels = backends.FormatArchive, a.Size(), a.Digest(), labels(doc.Annotations)
		return img, nil
	}
	layer := doc.Layers[0]
	if !isDigest(layer.Digest.String()) || layer.Size < 0 {
		return backends.Image{}, fmt.Errorf("%w: layer of %d bytes with the digest %q", backends.ErrBadAnswer, layer.Size, layer.Digest)
	}
	img.Format, img.Size, img.Digest = backends.FormatSIF, layer.Size, layer.Digest.String()
	if _, format := backends.CutExt(layer.Annotations[ocispec.AnnotationTitle]); format == backends.FormatSIMG {
		img.Format = format
	}
	img.Labels = labels(layer.Annotations, doc.Annotations)
	return img, nil
}

// isSIF reports whether a manifest is as ORAS clients write it: one layer, the
// file. The media type of the configuration was never the same for long and tells
// nothing.
func isSIF(doc document) bool {
	return len(doc.Layers) == 1 && (doc.Layers[0].MediaType == sifLayer || doc.Layers[0].MediaType == sifLayerOld)
}

// labels merges annotations, the later before the earlier. Of a manifest that is
// made of them, only a part is kept: they stay in memory.
func labels(all ...map[string]string) map[string]string {
	merged := map[string]string{}
	for _, annotations := range all {
		maps.Copy(merged, annotations)
	}
	kept := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(merged)) {
		if len(kept) < maxLabels && len(key)+len(merged[key]) <= maxLabel {
			kept[key] = merged[key]
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}

const (
	maxLabels = 64
	maxLabel  = 4 << 10 // bytes of a key and its value

	// maxKnown bounds the memory of images: some 1 KiB each, as a rule.
	maxKnown = 4096
	// foreignLife is how long a tag that is no image stays out of listings
	// before it gets another chance: it may be moved to one.
	foreignLife = 10 * time.Minute
)

// known remembers manifests, which never change under their digest, and the
// tags that were asked for.
type manifestCache struct {
	images bounded.Map[manifestKey, found]
	tags   bounded.Map[string, manifestKey] // "repo:reference" to what it was last
	kinds  bounded.Map[string, string]      // by repository: the format of the image seen last
	shut   bounded.Map[string, time.Time]   // by repository: when a GET was refused
}

type manifestKey struct{ repo, top, arch string }

func (k *manifestCache) tag(repo, reference string) bool {
	_, ok := k.tags.Get(repo + ":" + reference)
	return ok
}

func (k *manifestCache) image(repo, top, arch string) (found, bool) {
	f, ok := k.images.Get(manifestKey{repo, top, arch})
	f.at = time.Now()
	f.img.Labels = maps.Clone(f.img.Labels)
	return f, ok
}

func (k *manifestCache) add(repo, reference, arch string, f found) {
	key := manifestKey{repo, f.top, arch}
	f.img.Labels = maps.Clone(f.img.Labels)
	k.images.Put(key, f)
	k.tags.Put(repo+":"+reference, key)
	if f.err == nil {
		k.kinds.Put(repo, f.img.Format)
	}
}

// close notes that a repository is not for us, whatever the method.
func (k *manifestCache) close(repo string) { k.shut.Put(repo, time.Now()) }

// closed reports whether a GET was refused a moment ago, too.
func (k *manifestCache) closed(repo string) bool {
	at, ok := k.shut.Get(repo)
	return ok && time.Since(at) < renewEvery
}

// seen reports whether an image of the repository is known.
func (k *manifestCache) seen(repo string) bool {
	kind, _ := k.kinds.Get(repo)
	return kind != ""
}

// recall notes what an image of the repository was once, if none is known.
func (k *manifestCache) recall(repo, format string) {
	k.kinds.Update(repo, func(kind string, ok bool) (string, bool) {
		kind = cmp.Or(kind, format)
		return kind, kind != ""
	})
}

// last returns what a tag was last.
func (k *manifestCache) last(repo, tag string) (f found, ok bool) {
	if key, ok := k.tags.Get(repo + ":" + tag); ok {
		return k.images.Get(key)
	}
	return f, false
}

// guess returns the format that a tag most likely has: that of the image it was
// last, else of another one in the repository, else what is usual.
func (k *manifestCache) guess(repo, tag, usual string) string {
	if f, ok := k.last(repo, tag); ok && f.err == nil {
		return f.img.Format
	}
	kind, _ := k.kinds.Get(repo)
	return cmp.Or(kind, usual)
}

// foreign reports whether a tag was just seen to be no image.
func (k *manifestCache) foreign(repo, tag string) bool {
	f, ok := k.last(repo, tag)
	return ok && f.err != nil && time.Since(f.at) < foreignLife
}
