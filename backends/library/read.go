// SPDX-License-Identifier: Apache-2.0

package library

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
	"github.com/sregfs/sregfs/backends/vsif"
)

const (
	imagesPath = "/v1/images/"
	tagsV1     = "/v1/tags/"
	tagsV2     = "/v2/tags/"

	maxLabel = 4 << 10 // bytes of one
	// noDescription is what clients write where nobody wrote anything.
	noDescription = "no description"
)

// An image is what the library tells of one (definitions/image of openapi.yml, and
// client/models.go of scs-library-client).
type image struct {
	ID             string   `json:"id"`
	Hash           string   `json:"hash"`
	Description    string   `json:"description"`
	Container      string   `json:"container"`
	Size           int64    `json:"size"`
	Uploaded       *bool    `json:"uploaded"` // a library always tells it
	Deleted        bool     `json:"deleted"`
	Signed         *bool    `json:"signed"`
	Encrypted      *bool    `json:"encrypted"`
	Arch           string   `json:"arch"`
	Fingerprints   []string `json:"fingerprints"`
	Tags           []string `json:"tags"`
	CreatedAt      string   `json:"createdAt"`
	EntityName     string   `json:"entityName"`
	CollectionName string   `json:"collectionName"`
	ContainerName  string   `json:"containerName"`
}

// find asks for what n's container has under a reference: a tag, or a hash.
func (c *client) find(ctx context.Context, n name, reference, arch string) (image, error) {
	var m image
	err := c.get(ctx, imagesPath+n.path()+":"+url.PathEscape(reference)+"?arch="+url.QueryEscape(arch), &m)
	if err != nil {
		return image{}, err
	}
	if _, _, ok := versionOf(m.Hash); !ok || m.Size < 0 || m.ID == "" {
		return image{}, fmt.Errorf("%w: image %.80q of %d bytes with the hash %.80q", backends.ErrBadAnswer, m.ID, m.Size, m.Hash)
	}
	if m.Uploaded == nil {
		return image{}, errRegistryServer
	}
	return m, nil
}

// uploaded reports whether the bytes of m are there.
func (m image) uploaded() bool { return m.Uploaded != nil && *m.Uploaded }

// Stat asks for the tag; for the digest if ref.Version is one; and else for the
// tag's image of the architecture that ref.Version names.
func (c *client) Stat(ctx context.Context, ref backends.Ref) (backends.Image, error) {
	if tooDeep(ref.Collection) {
		return backends.Image{}, backends.NotFound("a library has no collections in collections")
	}
	if err := c.CheckName(ref); err != nil {
		return backends.Image{}, err
	}
	n, reference, arch := split(ref), cmp.Or(ref.Tag, backends.DefaultTag), c.arch
	hash := hashOf(ref.Version)
	switch {
	case hash != "":
		reference = hash
	case isArchive(ref.Version):
		return c.container(ctx, ref, backends.NotFound("no container image has the archive %s", ref.Version))
	case ref.Version != "":
		arch = ref.Version
	}
	m, err := c.find(ctx, n, reference, arch)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return c.container(ctx, ref, err)
	case err != nil:
		return backends.Image{}, err
	case hash != "" && m.Hash != hash:
		return backends.Image{}, fmt.Errorf("%w: asked for %s, the library has %s", backends.ErrBadAnswer, hash, m.Hash)
	case hash == "" && ref.Version != "" && m.Arch != arch:
		return backends.Image{}, backends.Saying(backends.ErrNoVariant, "%s has no image for %s (there is one for %.40q)", ref.Tag, arch, m.Arch)
	case !m.uploaded():
		return backends.Image{}, backends.NotFound("its upload has not ended")
	case m.Deleted:
		return backends.Image{}, backends.NotFound("it was deleted")
	}
	ref.Version = ""
	if i := slices.IndexFunc(m.Tags, func(tag string) bool { return strings.EqualFold(tag, ref.Tag) }); i >= 0 && !slices.Contains(m.Tags, ref.Tag) {
		ref.Tag = m.Tags[i] // as the library spells it
	}
	return c.image(m, ref), nil
}

// image says in our words what m says.
func (c *client) image(m image, ref backends.Ref) backends.Image {
	img := backends.Image{Ref: ref, Size: m.Size, Labels: m.labels(), URL: c.page(split(ref))}
	if m.Size == 0 { // not told: no image is empty
		img.Size = -1
	}
	img.Version, img.Digest, _ = versionOf(m.Hash)
	if t, err := time.Parse(time.RFC3339Nano, m.CreatedAt); err == nil && t.Year() > 1 {
		img.Modified = t
	}
	return img
}

// labels are what would otherwise need the image itself: above all who signed it.
func (m image) labels() map[string]string {
	labels := map[string]string{}
	add := func(key, value string) {
		if value != "" && len(value) <= maxLabel {
			labels[key] = value
		}
	}
	add("arch", m.Arch)
	add("fingerprints", strings.Join(m.Fingerprints, ","))
	if !strings.EqualFold(m.Description, noDescription) {
		add("description", m.Description)
	}
	if m.Signed != nil {
		add("signed", strconv.FormatBool(*m.Signed))
	}
	if m.Encrypted != nil {
		add("encrypted", strconv.FormatBool(*m.Encrypted))
	}
	if len(labels) == 0 {
		return nil
	}
	return labels
}

// page is where a person would look at an image: the page of the Sylabs cloud, or
// what "singularity pull" takes.
func (c *client) page(n name) string {
	if c.address.configured.isSylabs() {
		return "https://" + sylabsEndpoint + "/library/" + n.path()
	}
	return "library://" + c.address.configured.address.Host + "/" + strings.TrimSuffix(n.String(), ":")
}

// name is where a search has found m; the tag is not said.
func (m image) name() name {
	return name{entity: m.EntityName, collection: m.CollectionName, container: m.ContainerName}
}

const filesPath = "/v1/imagefile/"

// Open reads where the image was last found, if that was just now; in the OCI
// registry behind the library if it has one; and else where the library redirects
// to. Always by the digest: what the tag means by now does not matter.
func (c *client) Open(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	if err := c.CheckName(img.Ref); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("%w: offset %d", fs.ErrInvalid, off)
	}
	if img.Version == "" {
		var err error
		if img, err = c.Stat(ctx, img.Ref); err != nil {
			return nil, err
		}
	}
	if n == 0 || img.Size >= 0 && off >= img.Size {
		return http.NoBody, nil
	}
	switch {
	case archive.IsDigest(img.Digest):
		return c.openContainer(ctx, img, off, n)
	case vsif.IsDigest(img.Digest):
		return nil, errMadeOfLayers
	}
	span := ranged.Span{Off: off, N: n}
	if at, ok := c.links.get(linkKey(img)); ok {
		resp, err := c.follow(ctx, at, span) //nolint:bodyclose // Body does it
		if err == nil {
			return span.Body(resp, img.Size)
		}
		if !stale(err) {
			return nil, err
		}
		c.links.drop(linkKey(img), at)
	}
	if img.Digest != "" {
		body, err := c.openRegistryImage(ctx, img, off, n)
		if body != nil || err != nil {
			return body, err
		}
	}
	return c.openFile(ctx, img, span)
}

func linkKey(img backends.Image) string { return split(img.Ref).path() + "@" + img.Version }

// stale reports whether an address that gave err may merely have expired.
func stale(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, backends.ErrBadAnswer)
}

// openBranchImage reads from the OCI registry, where the layer has the digest of the
// file. It returns nothing at all if there is no registry, or none that has it.
func (c *client) openRegistryImage(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	at, err := c.registry(ctx, split(img.Ref), pull, true)
	if at == nil || err != nil {
		return nil, err
	}
	layer := backends.Image{Ref: at.named(img.Ref.Tag), Size: img.Size, Digest: img.Digest, Version: img.Digest}
	body, err := at.Open(ctx, layer, off, n)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, backends.ErrChanged) {
		return nil, nil
	}
	return body, err
}

// openFile asks the library itself. Servers that know no digest there are asked for
// the tag, while that means the same.
func (c *client) openFile(ctx context.Context, img backends.Image, span ranged.Span) (io.ReadCloser, error) {
	resp, err := c.file(ctx, img, hashOf(img.Version), span) //nolint:bodyclose // Body does it
	if errors.Is(err, fs.ErrNotExist) && img.Ref.Tag != "" {
		now, statErr := c.Stat(ctx, img.Ref)
		switch {
		case statErr != nil:
			return nil, statErr
		case now.Version != img.Version:
			return nil, backends.ErrChanged
		}
		resp, err = c.file(ctx, img, img.Ref.Tag, span) //nolint:bodyclose // Body does it
	}
	if err != nil {
		return nil, err
	}
	return span.Body(resp, img.Size)
}

// file asks for a part of the image that the library has under reference.
func (c *client) file(ctx context.Context, img backends.Image, reference string, span ranged.Span) (resp *http.Response, err error) {
	arch := img.Labels["arch"]
	if arch == "" {
		arch = c.arch
	}
	err = c.loggedIn(ctx, func(base *url.URL, token string) error {
		address := base.String() + filesPath + split(img.Ref).path() + ":" + url.PathEscape(reference) + "?arch=" + url.QueryEscape(arch)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return fmt.Errorf("%w: %v", fs.ErrInvalid, err)
		}
		authorize(req, token)
		span.Ask(req)
		resp, err = c.part(req) //nolint:bodyclose // the caller does it
		if err != nil {
			return err
		}
		if final := resp.Request; final != nil && final.URL != nil && backends.Origin(final.URL) != backends.Origin(base) {
			c.links.put(linkKey(img), link{address: final.URL.String(), etag: resp.Header.Get("ETag")})
		}
		return nil
	})
	return resp, err
}

// follow asks where the library redirected to, for the bytes that were there before.
func (c *client) follow(ctx context.Context, at link, span ranged.Span) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.address, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	if at.etag != "" {
		req.Header.Set("If-Match", at.etag)
	}
	span.Ask(req)
	return c.part(c.sentAway(req))
}

// part sends a request for a part of an image.
func (c *client) part(req *http.Request) (*http.Response, error) {
	resp, err := httpx.Answer(c.http, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return resp, nil
	}
	return nil, refusal(resp)
}
