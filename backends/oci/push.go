// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// emptyConfig is the configuration of every SIF in a registry.
var emptyConfig = []byte("{}")

// Push uploads the file as a blob, in pieces, and then the manifest that makes
// it visible. A registry cannot compare and swap: src.Replaces is checked right
// before the manifest is sent, and between clients that moment remains.
func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if err := c.checkPush(ref, src); err != nil {
		return backends.Image{}, err
	}
	repo := c.repository(ref)
	ctx = c.scoped(ctx, repo, push)
	memo := uploads.Recall[pushState](&c.unsaved, repo+":"+ref.Tag, src, c.log)
	f, err := c.form(ctx, repo, ref, src)
	if err != nil {
		return backends.Image{}, err
	}
	if err := c.pushLayer(ctx, repo, src, memo); err != nil {
		return backends.Image{}, c.notThere(err, repo)
	}
	if err := c.pushSmall(ctx, repo, f.config); err != nil {
		return backends.Image{}, err
	}
	if f.hashTag != "" {
		if err := c.putManifest(ctx, repo, f.hashTag, f.image); err != nil {
			return backends.Image{}, err
		}
	}
	if err := c.commit(ctx, repo, ref, src, memo, f.top); err != nil {
		return backends.Image{}, err
	}
	c.catalog.forget()
	var doc document
	if err := json.Unmarshal(f.image.body, &doc); err != nil {
		return backends.Image{}, err
	}
	img, err := c.imageOf(f.image, doc)
	if err != nil {
		return backends.Image{}, err
	}
	c.manifests.add(repo, ref.Tag, c.arch, found{top: f.top.digest, img: img})
	memo.Forget()
	return c.named(img, ref), nil
}

func (c *client) checkPush(ref backends.Ref, src backends.Source) error {
	switch {
	case ref.Tag == "" || ref.Version != "":
		return fmt.Errorf("%w: a push goes to a tag, not to a version", fs.ErrInvalid)
	case !isDigest(src.Digest) || src.Size < 0:
		return fmt.Errorf("%w: source of %d bytes with the digest %q", fs.ErrInvalid, src.Size, src.Digest)
	}
	return c.CheckName(ref)
}

// The fields are in the order in which Apptainer (through
// go-containerregistry) writes them.
type sifManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        sifDescriptor     `json:"config"`
	Layers        []sifDescriptor   `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type sifDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Size        int64             `json:"size"`
	Digest      string            `json:"digest"`
	Data        []byte            `json:"data,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// annotationModified is the time of the file that was pushed (RFC 3339, with
// nanoseconds), which a copying tool compares.
const annotationModified = "com.github.sregfs.modified"

// newManifest makes the manifest of src with that configuration. The title is the name of the file that
// "oras pull" and "apptainer pull" write: as the latter names it by itself. What the
// file is, its extension tells: programs that run images want the media type of a SIF.
func newManifest(ref backends.Ref, src backends.Source, config []byte) (manifest, error) {
	v := sifManifest{
		SchemaVersion: 2,
		MediaType:     ocispec.MediaTypeImageManifest,
		Config: sifDescriptor{
			MediaType: sifConfig, Size: int64(len(config)), Digest: digest.FromBytes(config).String(), Data: config,
		},
		Layers: []sifDescriptor{{
			MediaType: sifLayer, Size: src.Size, Digest: src.Digest,
			Annotations: map[string]string{ocispec.AnnotationTitle: ref.Name + "_" + ref.Tag + backends.Ext(src.Format)},
		}},
	}
	v.Annotations = map[string]string{}
	if created := sifCreated(src.Content); !created.IsZero() {
		v.Annotations[ocispec.AnnotationCreated] = created.UTC().Format(time.RFC3339)
	}
	if y := src.Modified.UTC().Year(); !src.Modified.IsZero() && 0 < y && y < 10_000 {
		v.Annotations[annotationModified] = src.Modified.UTC().Format(time.RFC3339Nano)
	}
	body, err := json.Marshal(v)
	if err != nil {
		return manifest{}, err
	}
	return manifest{digest: digest.FromBytes(body).String(), mediaType: v.MediaType, body: body}, nil
}

// sifCreated reads the time of creation from a SIF's header (a launch line of
// 32 bytes, magic, version, architecture, UUID, time); zero if r is no SIF.
// Being in the file it is the same at each push, which keeps the digest of the
// manifest.
func sifCreated(r io.ReaderAt) time.Time {
	var header [72]byte
	if _, err := r.ReadAt(header[:], 0); err != nil || !bytes.HasPrefix(header[32:], []byte("SIF_MAGIC\x00")) {
		return time.Time{}
	}
	seconds := int64(binary.LittleEndian.Uint64(header[64:]))
	if seconds <= 0 || seconds > 1<<36 { // year 4147: RFC 3339 ends at 9999
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// allowed decides whether the tag may be replaced. It may if it names mine, the
// digest of a manifest that this very push sent before it was interrupted.
func (c *client) allowed(ctx context.Context, repo string, ref backends.Ref, src backends.Source, mine string) error {
	f, err := c.resolve(ctx, repo, ref.Tag, c.arch)
	switch {
	case (f.top == "" || c.config.Layout == layoutLibrary) && errors.Is(err, fs.ErrNotExist):
		return src.CreateAllowed()
	case f.top != "" && f.top == mine:
		return nil
	case f.top != "" && err != nil && isAnswer(err):
		f.img.Version = f.top // no image, but something
	case err != nil:
		return err
	}
	return src.ReplaceAllowed(ref, c.named(f.img, ref))
}

// isAnswer reports whether err says what is there, not that asking failed.
func isAnswer(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) || isOdd(err)
}

// commit checks the blob and makes it visible by the manifest.
func (c *client) commit(ctx context.Context, repo string, ref backends.Ref, src backends.Source, memo *uploads.Memo[pushState], m manifest) error {
	size, err := c.blobSize(ctx, repo, src.Digest)
	if err != nil {
		return err
	}
	if size != src.Size {
		return fmt.Errorf("%w: the registry has %d bytes of %d", backends.ErrCorrupt, size, src.Size)
	}
	return c.publish(ctx, repo, ref, src, memo, m)
}

// publish gives ref the manifest, of which all parts are there.
func (c *client) publish(ctx context.Context, repo string, ref backends.Ref, src backends.Source, memo *uploads.Memo[pushState], m manifest) error {
	unlock, err := c.commits.Lock(ctx, repo+":"+ref.Tag)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.allowed(ctx, repo, ref, src, memo.State.Manifest); err != nil {
		return err
	}
	if err := src.MayCommit(); err != nil {
		return err
	}
	// From here on an interruption leaves open whether the tag is ours.
	memo.State = pushState{Manifest: m.digest}
	memo.Save()
	sent := c.putManifest(ctx, repo, ref.Tag, m)
	if isOdd(sent) {
		// docker-registry writes the links to its blobs in place: while
		// another client pushes the same configuration, it can read an empty
		// one and calls the digest in the manifest invalid.
		sent = c.putManifest(ctx, repo, ref.Tag, m)
	}
	if sent != nil && !broken(ctx, sent) {
		return sent
	}
	now, err := c.head(ctx, repo, ref.Tag)
	switch {
	case err != nil && sent != nil:
		return sent
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil // acknowledged; that it cannot be looked at now changes nothing
	case err == nil && now == m.digest:
		return nil
	case sent != nil:
		return sent
	case err != nil:
		return fmt.Errorf("%w: the registry took the manifest and lost it", backends.ErrBadAnswer)
	}
	return fmt.Errorf("%w: the tag went to %s right after", backends.ErrChanged, now)
}

// putManifest stores m under reference, a tag or its digest.
func (c *client) putManifest(ctx context.Context, repo, reference string, m manifest) error {
	req, err := c.request(ctx, http.MethodPut, "/v2/"+repo+"/manifests/"+reference, bytes.NewReader(m.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", m.mediaType)
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != m.digest {
		return fmt.Errorf("%w: manifest %s stored as %s", backends.ErrCorrupt, m.digest, got)
	}
	return nil
}

// pushSmall uploads content in one request, unless it is there.
func (c *client) pushSmall(ctx context.Context, repo string, content []byte) error {
	sum := digest.FromBytes(content).String()
	unlock, err := c.commits.Lock(ctx, repo+"@"+sum)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.blobSize(ctx, repo, sum); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	u := &upload{c: c, repo: repo, digest: sum, size: int64(len(content)), content: bytes.NewReader(content)}
	return u.whole(ctx)
}
