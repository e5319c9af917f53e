// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	// maxCompared is how many tags are asked for their digest before a delete;
	// where there are more, the tag is taken for one of several.
	maxCompared = 500
	// restoreTime is what putting a tag back may take after the caller is gone.
	restoreTime = 30 * time.Second
)

var errNoDelete = fmt.Errorf("%w: the registry does not delete (docker-registry does with REGISTRY_STORAGE_DELETE_ENABLED=true)",
	errors.ErrUnsupported)

// Delete removes the tag. Registries delete a digest with all the tags it has, and
// from under all the indexes that list it: if it is in use by another tag, the tag is
// first moved to a manifest of its own, and that one is deleted (as regclient does).
func (c *client) Delete(ctx context.Context, img backends.Image) error {
	ref := img.Ref
	if err := c.CheckName(ref); err != nil {
		return err
	}
	if ref.Tag == "" {
		return fmt.Errorf("%w: only a tag can be deleted", fs.ErrInvalid)
	}
	repo := c.repository(ref)
	ctx = c.scoped(ctx, repo, remove)
	unlock, err := c.commits.Lock(ctx, repo+":"+ref.Tag)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := c.resolve(ctx, repo, ref.Tag, c.arch)
	if f.top == "" {
		return err
	}
	if err != nil && !isAnswer(err) {
		return err
	}
	// An image of an index goes with its tag, which has other images too.
	named := ref.Version != "" && ref.Version == f.top || img.Version == f.top
	if img.Version != "" && !named && (img.Version != f.img.Version || ref.Version != "") {
		return backends.ErrChanged
	}
	err = c.drop(ctx, repo, ref.Tag, f.top)
	c.catalog.forget()
	return err
}

// drop takes tag away from digest, and digest too if nothing else needs it.
func (c *client) drop(ctx context.Context, repo, tag, digest string) error {
	shared, err := c.shared(ctx, repo, tag, digest)
	if err != nil {
		return err
	}
	if shared {
		return c.untag(ctx, repo, tag, digest)
	}
	return c.deleteManifest(ctx, repo, digest)
}

// deletes asks whether the registry deletes at all. One that does not says so of a
// digest that it has not, too.
// Errors: errNoDelete.
func (c *client) deletes(ctx context.Context, repo string) error {
	decoy, err := newDecoy()
	if err == nil {
		err = c.deleteManifest(ctx, repo, decoy.digest)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// shared reports whether other tags than tag lead to digest, by themselves or
// through an index.
func (c *client) shared(ctx context.Context, repo, tag, digest string) (bool, error) {
	tags, err := c.tags(ctx, repo)
	if errors.Is(err, fs.ErrPermission) || isAnswer(err) {
		return true, nil // not told: then nothing must happen to what may be there
	}
	if err != nil {
		return false, err
	}
	tags = slices.DeleteFunc(tags, func(t string) bool { return t == tag })
	if len(tags) > maxCompared {
		return true, nil
	}
	var other atomic.Bool
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(tagRequests)
	for _, t := range tags {
		group.Go(func() error {
			if other.Load() {
				return nil
			}
			var leads bool
			err := backends.Guard(c.log, func() (err error) {
				leads, err = c.leads(ctx, repo, t, digest, maxDepth)
				return err
			})
			if leads {
				other.Store(true)
			}
			return err
		})
	}
	err = group.Wait()
	return other.Load(), err
}

// leads reports whether reference, a tag or a digest, leads to digest through at most
// depth indexes. What cannot be told counts as yes: then nothing must happen to it.
func (c *client) leads(ctx context.Context, repo, reference, digest string, depth int) (bool, error) {
	m, err := c.look(ctx, repo, reference)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil || m.digest == digest:
		return err == nil, err
	case m.mediaType == ocispec.MediaTypeImageManifest || m.mediaType == dockerImage:
		return false, nil
	}
	var doc document
	if m, err = c.fetch(ctx, repo, m.digest); err == nil {
		err = httpx.JSON(bytes.NewReader(m.body), &doc)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case isAnswer(err), len(doc.Manifests) > 0 && depth == 0:
		return true, nil
	case err != nil:
		return false, err
	}
	for _, child := range doc.Manifests {
		if child.Digest.String() == digest {
			return true, nil
		}
		if child.MediaType != ocispec.MediaTypeImageIndex && child.MediaType != dockerIndex {
			continue
		}
		if leads, err := c.leads(ctx, repo, child.Digest.String(), digest, depth-1); leads || err != nil {
			return leads, err
		}
	}
	return false, nil
}

// untag takes tag away from old, which other tags have too. If it goes wrong
// half-way, the tag is put back.
func (c *client) untag(ctx context.Context, repo, tag, old string) error {
	before, err := c.fetch(ctx, repo, old)
	if err != nil {
		return err
	}
	decoy, err := newDecoy()
	if err != nil {
		return err
	}
	if err := c.deletes(ctx, repo); err != nil {
		return err
	}
	if err := c.pushSmall(ctx, repo, emptyConfig); err != nil {
		return err
	}
	err = c.putManifest(ctx, repo, tag, decoy)
	if err == nil {
		if err = c.deleteManifest(ctx, repo, decoy.digest); err == nil {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTime)
	defer cancel()
	if back := c.putManifest(ctx, repo, tag, before); back != nil {
		c.log.Error("tag is lost: its image is still there by digest", "repository", repo, "tag", tag, "digest", old, "err", back)
	}
	return err
}

// newDecoy makes a manifest that no other tag can have.
func newDecoy() (manifest, error) {
	empty := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromBytes(emptyConfig), Size: int64(len(emptyConfig)),
	}
	v := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: empty, Layers: []ocispec.Descriptor{empty},
		Annotations: map[string]string{"org.sregfs.deleted": rand.Text()},
	}
	v.SchemaVersion = 2
	body, err := json.Marshal(v)
	if err != nil {
		return manifest{}, err
	}
	return manifest{digest: digest.FromBytes(body).String(), mediaType: v.MediaType, body: body}, nil
}

// deleteManifest deletes a digest and all its tags.
func (c *client) deleteManifest(ctx context.Context, repo, digest string) error {
	req, err := c.request(ctx, http.MethodDelete, "/v2/"+repo+"/manifests/"+digest, nil)
	if err != nil {
		return err
	}
	resp, err := c.do(req)
	if errors.Is(err, errors.ErrUnsupported) {
		return errNoDelete
	}
	if err != nil {
		return err
	}
	resp.Body.Close()
	return nil
}
