// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/vsif"
)

// What "docker push" puts into the OCI registry behind a library is no image to the library:
// it does not list it, and says that there is none. The registry has it.

// container returns the container image that ref names in the registry behind the library;
// missing if there is none.
func (c *client) container(ctx context.Context, ref backends.Ref, missing error) (backends.Image, error) {
	at, err := c.registry(ctx, split(ref), pull, false)
	switch {
	case err != nil:
		return backends.Image{}, err
	case at == nil:
		return backends.Image{}, missing
	}
	there := at.named(ref.Tag)
	there.Version = ref.Version
	img, err := at.Stat(ctx, there)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !errors.Is(err, backends.ErrNoVariant), errors.Is(err, errors.ErrUnsupported), errors.Is(err, fs.ErrInvalid):
		return backends.Image{}, missing
	case err != nil:
		return backends.Image{}, err
	case !isContainer(img):
		return backends.Image{}, missing // the library knows its own images
	}
	img.Ref = ref
	img.Ref.Version = ""
	return img, nil
}

func isContainer(img backends.Image) bool {
	return archive.IsDigest(img.Digest) || vsif.IsDigest(img.Digest)
}

// openContainer reads the archive of a container image.
func (c *client) openContainer(ctx context.Context, img backends.Image, off, n int64) (io.ReadCloser, error) {
	at, there, err := c.inRegistry(ctx, img)
	if err != nil {
		return nil, err
	}
	return at.Open(ctx, there, off, n)
}

// Layers implements backends.Layered.
func (c *client) Layers(ctx context.Context, img backends.Image) (backends.Layers, error) {
	if err := c.CheckName(img.Ref); err != nil {
		return backends.Layers{}, err
	}
	at, there, err := c.inRegistry(ctx, img)
	if err != nil {
		return backends.Layers{}, err
	}
	l, ok := at.Backend.(backends.Layered)
	if !ok {
		return backends.Layers{}, errors.ErrUnsupported
	}
	layers, err := l.Layers(ctx, there)
	for i := range layers.Blobs {
		layers.Blobs[i].Ref = img.Ref
	}
	return layers, err
}

// inRegistry returns the registry of a container image, and what it is there.
func (c *client) inRegistry(ctx context.Context, img backends.Image) (*registry, backends.Image, error) {
	at, err := c.registry(ctx, split(img.Ref), pull, false)
	if err == nil && at == nil {
		err = backends.NotFound("the library has no registry for it any more")
	}
	if err != nil {
		return nil, img, err
	}
	img.Ref = at.named(img.Ref.Tag)
	return at, img, nil
}

// Unfit implements backends.Layered. The registry is known: the image was read there.
func (c *client) Unfit(img backends.Image, why error) {
	at, known := c.registries.get(split(img.Ref).path() + " " + pull)
	if !known || at == nil {
		return
	}
	if l, ok := at.Backend.(backends.Layered); ok {
		img.Ref = at.named(img.Ref.Tag)
		l.Unfit(img, why)
	}
}

// ListsArchives implements backends.ArchiveLister.
func (c *client) ListsArchives() bool { return c.show == backends.ShowBoth }

var errMadeOfLayers = fmt.Errorf("%w: a file that is made of layers is not read by itself", errors.ErrUnsupported)
