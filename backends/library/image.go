// SPDX-License-Identifier: Apache-2.0

package library

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
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
	case ref.Version != "":
		arch = ref.Version
	}
	m, err := c.find(ctx, n, reference, arch)
	switch {
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
	if c.home.place.isSylabs() {
		return "https://" + sylabsEndpoint + "/library/" + n.path()
	}
	return "library://" + c.home.place.address.Host + "/" + strings.TrimSuffix(n.String(), ":")
}

// name is where a search has found m; the tag is not said.
func (m image) name() name {
	return name{entity: m.EntityName, collection: m.CollectionName, container: m.ContainerName}
}
