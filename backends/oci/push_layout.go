// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/sifhead"
)

// A form is the documents of one push.
type form struct {
	config  []byte
	image   manifest
	hashTag string   // under which image is stored first; "" if it is top itself
	top     manifest // what the tag will lead to
}

// form makes the documents for src.
func (c *client) form(ctx context.Context, repo string, ref backends.Ref, src backends.Source) (form, error) {
	if c.config.Layout == layoutLibrary {
		return c.libraryForm(ctx, repo, ref, src)
	}
	m, err := newManifest(ref, src, emptyConfig)
	return form{config: emptyConfig, image: m, top: m}, err
}

// A libraryConfig is the configuration of an image in the registry behind a Sylabs
// library (scs-library-client, client/oci.go: imageConfig). Its clients refuse an
// image without an architecture.
type libraryConfig struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	RootFS       string `json:"rootfs"`
	Signed       bool   `json:"signed"`
	Encrypted    bool   `json:"encrypted"`
}

// libraryForm makes what "singularity push library://" does: a configuration that
// tells what the image is, its manifest under a tag of the digest, and an index of
// architectures. Unlike there, those that the tag has of others stay in it.
func (c *client) libraryForm(ctx context.Context, repo string, ref backends.Ref, src backends.Source) (form, error) {
	head, err := sifhead.Read(src.Content)
	if err != nil {
		return form{}, err
	}
	arch := cmp.Or(head.Arch, c.arch)
	config, err := json.Marshal(libraryConfig{
		Architecture: arch, OS: "linux", RootFS: src.Digest, Signed: head.Signed, Encrypted: head.Encrypted,
	})
	if err != nil {
		return form{}, err
	}
	src.Modified = time.Time{} // all tags of these bytes share the manifest
	m, err := newManifest(ref, src, config)
	if err != nil {
		return form{}, err
	}
	others, err := c.otherArchs(ctx, repo, ref.Tag, arch)
	if err != nil {
		return form{}, err
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	index.SchemaVersion = 2
	index.Manifests = append(others, ocispec.Descriptor{
		MediaType: m.mediaType, Digest: digest.Digest(m.digest), Size: int64(len(m.body)),
		Platform: &ocispec.Platform{Architecture: arch, OS: "linux"},
	})
	body, err := json.Marshal(index)
	if err != nil {
		return form{}, err
	}
	return form{
		config: config, image: m, hashTag: strings.Replace(src.Digest, ":", ".", 1),
		top: manifest{digest: digest.FromBytes(body).String(), mediaType: index.MediaType, body: body},
	}, nil
}

// otherArchs returns what tag has for other architectures than arch.
func (c *client) otherArchs(ctx context.Context, repo, tag, arch string) ([]ocispec.Descriptor, error) {
	now, err := c.fetch(ctx, repo, tag)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var doc document
	if err := httpx.JSON(bytes.NewReader(now.body), &doc); err != nil {
		return nil, err
	}
	var others []ocispec.Descriptor
	for _, d := range doc.Manifests {
		if d.Platform != nil && d.Platform.Architecture != arch {
			others = append(others, d)
		}
	}
	return others, nil
}
