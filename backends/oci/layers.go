// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
	"github.com/sregfs/sregfs/backends/vsif"
)

// A container image is shown as a SIF whose size follows from its manifest and from the ends
// of its layers alone: the same on every machine, and before a layer is read. One that no such
// SIF can be made of is shown as an archive (archive.go), as are all if Config.Show says so.

const (
	// maxLayers is how many layers an image has at most (Docker: 127) of which the ends are
	// asked for.
	maxLayers = 512
	// layerRequests is how many of these are asked for at once, by all who look at images: as
	// many as a client has requests under way.
	layerRequests = 32
	maxConfigs    = 256
	maxHeldConfig = 64 << 10 // bytes of a configuration that stays in memory
	maxReason     = 1 << 10
	// labelArchive is the label of an image that is an archive though it ought to be a SIF: why.
	labelArchive = "com.github.sregfs.archive"
)

// layered is what is known of container images. Nothing of it ever changes, but that one proves
// unfit. The zero value, with slots, knows nothing.
type layered struct {
	shapes  bounded.Map[string, shape]    // by the digest of the manifest
	ends    bounded.Map[string, layerEnd] // by the digest of the layer
	configs bounded.Map[string, []byte]   // by their digests
	asking  backends.Locks                // by the digest of the layer
	slots   chan struct{}                 // of layerRequests
}

// A shape is how a container image is shown: as a SIF of that size, or as an archive for a reason.
type shape struct {
	size  int64
	why   string
	until time.Time // from then on it is looked at again; zero: never
}

// A layerEnd is the last bytes of a layer of a size.
type layerEnd struct {
	size  int64
	bytes [vsif.TrailerSize]byte
}

// shown returns an image that was resolved as the remote shows it.
//
// Errors: those of asking for the ends of its layers.
func (c *client) shown(ctx context.Context, repo string, img backends.Image) (backends.Image, error) {
	if img.Format != backends.FormatArchive || c.config.Show == backends.FormatArchive {
		return img, nil
	}
	f, err := c.shapeOf(ctx, repo, img.Version)
	switch {
	case err != nil:
		return backends.Image{}, err
	case f.why != "":
		img.Labels = maps.Clone(img.Labels)
		if img.Labels == nil {
			img.Labels = map[string]string{}
		}
		img.Labels[labelArchive] = f.why
		return img, nil
	}
	img.Format, img.Size = backends.FormatSIF, f.size
	img.Digest = vsif.Algorithm + strings.TrimPrefix(img.Digest, archive.Algorithm) // both have the SHA-256 of the manifest
	return img, nil
}

// shapeOf finds out how the container image of a manifest is shown.
func (c *client) shapeOf(ctx context.Context, repo, version string) (shape, error) {
	f, known := c.knownShape(version)
	if known {
		return f, nil
	}
	p, err := c.parts(ctx, repo, version)
	switch {
	case errors.Is(err, vsif.ErrLayer):
		f.why = err.Error()
		c.log.Info("a container image is shown as an archive", "repository", repo, "digest", version, "reason", f.why)
	case errors.Is(err, fs.ErrNotExist):
		f.until = time.Now().Add(foreignLife) // it may be pushed again
		f.why = "a part of it is not in the registry: " + err.Error()
		c.log.Info("a container image is shown as an archive", "repository", repo, "digest", version, "reason", f.why)
	case err != nil:
		return shape{}, err
	}
	f.size = p.size
	c.layered.shapes.Put(version, f)
	return f, nil
}

// knownShape is shapeOf as far as it is known.
func (c *client) knownShape(version string) (f shape, known bool) {
	if f, known = c.layered.shapes.Get(version); known && (f.until.IsZero() || time.Now().Before(f.until)) {
		return f, true
	}
	f = shape{}
	if f.why = c.store.unfit(version); f.why != "" {
		c.layered.shapes.Put(version, f)
	}
	return f, f.why != ""
}

// Unfit implements backends.Layered: the image is an archive from now on.
func (c *client) Unfit(img backends.Image, why error) {
	if f, ok := c.knownShape(img.Version); ok && f.why != "" {
		return
	}
	reason := strings.ToValidUTF8(why.Error(), "")
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	c.log.Warn("a container image is shown as an archive from now on", "image", img.Ref.String(), "digest", img.Version, "reason", reason)
	c.layered.shapes.Put(img.Version, shape{why: reason})
	c.store.keepUnfit(img.Version, reason)
}

// ListsArchives implements backends.ArchiveLister.
func (c *client) ListsArchives() bool { return c.config.Show == backends.ShowBoth }

// Layers implements backends.Layered.
func (c *client) Layers(ctx context.Context, img backends.Image) (backends.Layers, error) {
	if err := c.CheckName(img.Ref); err != nil {
		return backends.Layers{}, err
	}
	repo := c.repository(img.Ref)
	ctx = c.scoped(ctx, repo, pull)
	if f, ok := c.knownShape(img.Version); ok && f.why != "" {
		return backends.Layers{}, backends.Saying(vsif.ErrLayer, "%s", f.why)
	}
	p, err := c.parts(ctx, repo, img.Version)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return backends.Layers{}, c.gone(ctx, img, err)
	case err != nil:
		return backends.Layers{}, err
	case vsif.Digest(p.manifest) != img.Digest:
		return backends.Layers{}, fmt.Errorf("%w: the version and the digest are of two images", backends.ErrChanged)
	}
	ref := img.Ref
	ref.Version = ""
	told := backends.Layers{Manifest: p.manifest, Config: p.config, Bounds: p.bounds}
	for _, l := range p.layers {
		told.Blobs = append(told.Blobs, backends.Image{Ref: ref, Size: l.Size, Digest: l.Digest.String(), Version: l.Digest.String()})
	}
	return told, nil
}

// parts are what the SIF of a container image is made of.
type parts struct {
	manifest, config []byte
	layers           []ocispec.Descriptor
	bounds           []int64
	size             int64 // of the file
}

// parts reads the manifest and the configuration, and asks for the ends of the layers.
//
// Errors: vsif.ErrLayer if no SIF can be made of it; fs.ErrNotExist if something is not there.
func (c *client) parts(ctx context.Context, repo, version string) (parts, error) {
	a, err := c.archive(ctx, repo, version)
	if err != nil {
		return parts{}, err
	}
	var m ocispec.Manifest
	p := parts{manifest: a.Manifest()}
	if err := json.Unmarshal(p.manifest, &m); err != nil {
		return parts{}, fmt.Errorf("%w: %v", backends.ErrBadAnswer, err)
	}
	if n := len(m.Layers); n == 0 || n > maxLayers {
		return parts{}, fmt.Errorf("%w: there are %d", vsif.ErrLayer, n)
	}
	for _, l := range m.Layers {
		if _, err := vsif.Bound(l, [vsif.TrailerSize]byte{}); err != nil {
			return parts{}, err // before any request
		}
	}
	p.layers, p.bounds = m.Layers, make([]int64, len(m.Layers))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(layerRequests)
	group.Go(func() error {
		return backends.Guard(c.log, func() (err error) { p.config, err = c.configOf(groupCtx, repo, m.Config); return err })
	})
	for i, l := range m.Layers {
		group.Go(func() error {
			return backends.Guard(c.log, func() (err error) { p.bounds[i], err = c.bound(groupCtx, repo, l); return err })
		})
	}
	if err := group.Wait(); err != nil {
		return parts{}, err
	}
	if err := checkConfig(p.config, len(m.Layers)); err != nil {
		return parts{}, err
	}
	plan, err := vsif.NewPlan(int64(len(p.manifest)), int64(len(p.config)), p.bounds)
	if err != nil {
		return parts{}, err
	}
	p.size = plan.Size
	return p, nil
}

// bound returns how many bytes the tar of a layer has at most.
func (c *client) bound(ctx context.Context, repo string, layer ocispec.Descriptor) (int64, error) {
	var end layerEnd
	if vsif.NeedsTrailer(layer) {
		var err error
		if end, err = c.end(ctx, repo, layer); err != nil {
			return 0, err
		}
	}
	return vsif.Bound(layer, end.bytes)
}

// end returns the end of a layer, which is asked for once, however many images have it.
func (c *client) end(ctx context.Context, repo string, layer ocispec.Descriptor) (layerEnd, error) {
	sum := layer.Digest.String()
	if e, ok := c.layered.ends.Get(sum); ok && e.size == layer.Size {
		return e, nil
	}
	unlock, err := c.layered.asking.Lock(ctx, sum)
	if err != nil {
		return layerEnd{}, err
	}
	defer unlock()
	if e, ok := c.layered.ends.Get(sum); ok && e.size == layer.Size {
		return e, nil
	}
	e, ok := c.store.end(sum)
	if !ok || e.size != layer.Size {
		if e, err = c.askEnd(ctx, repo, layer); err != nil {
			return layerEnd{}, fmt.Errorf("the end of layer %s: %w", sum, err)
		}
		c.store.keepEnd(sum, e)
	}
	c.layered.ends.Put(sum, e)
	return e, nil
}

// askEnd asks for the end of a layer. A blob of another size than the manifest says has
// another end: that would be another size of the file.
func (c *client) askEnd(ctx context.Context, repo string, layer ocispec.Descriptor) (layerEnd, error) {
	e := layerEnd{size: layer.Size}
	select {
	case c.layered.slots <- struct{}{}:
		defer func() { <-c.layered.slots }()
	case <-ctx.Done():
		return e, ctx.Err()
	}
	span := ranged.Span{Off: layer.Size - vsif.TrailerSize, N: vsif.TrailerSize}
	resp, err := c.blob(ctx, repo, layer.Digest.String(), span) //nolint:bodyclose // Body does it, or we
	if err != nil {
		return e, err
	}
	body, err := span.Body(resp, layer.Size)
	if errors.Is(err, errors.ErrUnsupported) {
		// Only this error would make it another image than on other machines.
		return e, fmt.Errorf("%w: the registry sends no part of a blob (with show = %q its container images are archives)", backends.ErrBadAnswer, backends.FormatArchive)
	}
	if err != nil {
		return e, err
	}
	defer body.Close()
	size, err := ranged.Size(resp)
	if err == nil && size < 0 {
		size, err = c.blobSize(ctx, repo, layer.Digest.String())
	}
	switch {
	case err != nil:
		return e, err
	case size != layer.Size:
		return e, fmt.Errorf("%w: a blob of %d bytes, and the manifest says %d", backends.ErrBadAnswer, size, layer.Size)
	}
	switch _, err := io.ReadFull(body, e.bytes[:]); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return e, fmt.Errorf("%w: fewer bytes than were asked for", backends.ErrBadAnswer)
	case err != nil:
		return e, backends.TransportError(err)
	}
	return e, nil
}

// configOf returns the configuration of a container image.
//
// Errors: vsif.ErrLayer for one that is too large; backends.ErrCorrupt.
func (c *client) configOf(ctx context.Context, repo string, d ocispec.Descriptor) ([]byte, error) {
	sum := d.Digest.String()
	if text, ok := c.layered.configs.Get(sum); ok && int64(len(text)) == d.Size {
		return text, nil
	}
	if d.Size > httpx.MaxMetadata {
		return nil, fmt.Errorf("%w: its configuration has %d bytes", vsif.ErrLayer, d.Size)
	}
	text, ok := c.store.blob(repo, sum)
	if !ok || int64(len(text)) != d.Size {
		body, err := c.part(ctx, repo, sum, ranged.Span{N: d.Size}, d.Size)
		if err != nil {
			return nil, err
		}
		defer body.Close()
		if text, err = httpx.ReadAll(body); err != nil {
			return nil, err
		}
		if got := d.Digest.Algorithm().FromBytes(text); got != d.Digest || int64(len(text)) != d.Size {
			return nil, fmt.Errorf("%w: the configuration %s has %d bytes with the digest %s", backends.ErrCorrupt, d.Digest, len(text), got)
		}
		c.store.keepBlob(repo, sum, text)
	}
	if len(text) <= maxHeldConfig {
		c.layered.configs.Put(sum, text)
	}
	return text, nil
}

// checkConfig reports whether a configuration is that of an image for Linux with so many layers.
//
// Errors: vsif.ErrLayer.
func checkConfig(text []byte, layers int) error {
	var config struct {
		OS     string `json:"os"`
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return fmt.Errorf("%w: its configuration is none: %v", vsif.ErrLayer, err)
	}
	if config.OS != "" && config.OS != "linux" {
		return fmt.Errorf("%w: they are for %.40q", vsif.ErrLayer, config.OS)
	}
	if n := len(config.RootFS.DiffIDs); n != layers {
		return fmt.Errorf("%w: the manifest has %d, its configuration %d", vsif.ErrLayer, layers, n)
	}
	for _, id := range config.RootFS.DiffIDs {
		if !isDigest(id.String()) {
			return fmt.Errorf("%w: one has the diff_id %.80q", vsif.ErrLayer, id)
		}
	}
	return nil
}

// The store keeps them, too: the ends by the digests of the layers, whichever repository they
// are in, and configurations as it does manifests.

func (s store) end(layer string) (e layerEnd, ok bool) {
	text := s.text("", "the end of "+layer)
	if len(text) != 8+vsif.TrailerSize {
		return e, false
	}
	e.size = int64(binary.LittleEndian.Uint64(text))
	copy(e.bytes[:], text[8:])
	return e, true
}

func (s store) keepEnd(layer string, e layerEnd) {
	s.put("", "the end of "+layer, append(binary.LittleEndian.AppendUint64(nil, uint64(e.size)), e.bytes[:]...))
}

func (s store) unfit(manifest string) string {
	return string(s.text("", "why no "+vsif.Algorithm+" "+manifest))
}

func (s store) keepUnfit(manifest, why string) {
	s.put("", "why no "+vsif.Algorithm+" "+manifest, []byte(why))
}

func (s store) blob(repo, sum string) ([]byte, bool) {
	text := s.text(repo, "blob "+sum)
	return text, text != nil && digest.Digest(sum).Algorithm().FromBytes(text).String() == sum
}

func (s store) keepBlob(repo, sum string, text []byte) {
	if len(text) <= maxStored {
		s.put(repo, "blob "+sum, text)
	}
}
