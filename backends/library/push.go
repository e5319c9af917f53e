// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/libapi"
	"github.com/sregfs/sregfs/backends/internal/sifhead"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// Push sends the image through the OCI registry behind the library if it has one,
// else to the object store or to the library itself, as its version can. A library
// cannot compare and swap: src.Replaces is checked right before the request that
// moves the tag.
func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if err := c.checkPush(ctx, ref, src); err != nil {
		return backends.Image{}, err
	}
	n := split(ref)
	unlock, err := c.commits.Lock(ctx, n.String())
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	p := &sending{c: c, n: n, ref: ref, src: src, memo: uploads.Recall[pushState](&c.unsaved, n.String(), src, c.log)}
	if img, done, err := p.allowed(ctx); err != nil || done {
		return img, err
	}
	err = p.send(ctx)
	c.listing.forget()
	if err != nil {
		return backends.Image{}, err
	}
	return p.published(ctx)
}

// checkPush refuses what cannot become the image that ref names.
func (c *client) checkPush(ctx context.Context, ref backends.Ref, src backends.Source) error {
	if ref.Tag == "" || ref.Version != "" {
		return fmt.Errorf("%w: a push goes to a tag, not to a version", fs.ErrInvalid)
	}
	if err := c.CheckName(ref); err != nil {
		return err
	}
	if !strings.HasPrefix(src.Digest, "sha256:") || backends.CheckDigest(src.Digest) != nil || src.Size < 0 {
		return fmt.Errorf("%w: source of %d bytes with the digest %q", fs.ErrInvalid, src.Size, src.Digest)
	}
	token, err := c.login.get(ctx)
	if err != nil {
		return err
	}
	if token == "" {
		return c.login.missing()
	}
	head, err := sifhead.Read(src.Content)
	if err != nil {
		return err
	}
	if head.Arch != "" && head.Arch != c.arch {
		return fmt.Errorf("%w: the image is for %s, and the names of this remote mean images for %s (a remote with arch = %q takes it)",
			fs.ErrInvalid, head.Arch, c.arch, head.Arch)
	}
	return nil
}

// A sending is a push on its way.
type sending struct {
	c      *client
	n      name
	ref    backends.Ref
	src    backends.Source
	memo   *uploads.Memo[pushState]
	viaOCI bool
}

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Sent bool   `json:"sent,omitempty"` // the name may be ours, whatever the answer was
	OCI  []byte `json:"oci,omitempty"`  // what the backend of the registry saved

	libapi.State // of an upload to the object store
}

// An ociSession keeps what the backend of the registry saves in our own state.
type ociSession struct{ memo *uploads.Memo[pushState] }

// Load implements backends.Session.
func (s ociSession) Load() []byte { return s.memo.State.OCI }

// Save implements backends.Session.
func (s ociSession) Save(state []byte) error {
	s.memo.State.OCI = state
	s.memo.Save()
	return nil
}

// current returns what the name means now.
func (p *sending) current(ctx context.Context) (backends.Image, error) {
	ref := p.ref
	ref.Version = ""
	return p.c.Stat(ctx, ref)
}

// allowed decides whether the name may be replaced. It is done already if the name
// means what an earlier try of this very push sent.
func (p *sending) allowed(ctx context.Context) (img backends.Image, done bool, _ error) {
	now, err := p.current(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return backends.Image{}, false, p.src.CreateAllowed()
	}
	if err != nil {
		return backends.Image{}, false, err
	}
	err = p.src.ReplaceAllowed(p.ref, now)
	if err != nil && p.memo.State.Sent && now.Digest == p.src.Digest {
		p.memo.Forget()
		return now, true, nil
	}
	return backends.Image{}, false, err
}

// send sends the image by the way that the configuration and the library want.
func (p *sending) send(ctx context.Context) error {
	way := p.c.way
	if way == pushAuto || way == pushOCI {
		at, err := p.c.registry(ctx, p.n, push, true)
		switch {
		case err != nil:
			return err
		case at != nil:
			p.viaOCI = true
			return p.oci(ctx, at)
		case way == pushOCI:
			return fmt.Errorf("%w: the library has no OCI registry (push_by = %q)", errors.ErrUnsupported, pushOCI)
		}
	}
	return p.library(ctx, way)
}

// oci leaves the push to the backend of the registry. What the name meant is to it
// another version than to us.
func (p *sending) oci(ctx context.Context, at *registry) error {
	pusher, ok := at.Backend.(backends.Pusher)
	if !ok {
		return fmt.Errorf("%w: the registry behind the library takes no images", errors.ErrUnsupported)
	}
	src := p.src
	if src.Replaces != "" && src.Replaces != backends.ReplaceAny {
		now, err := at.Stat(ctx, at.named(p.n.tag))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return backends.ErrChanged
		case err != nil:
			return err
		case now.Digest != src.Replaces:
			return backends.ErrChanged
		}
		src.Replaces = now.Version
	}
	p.memo.State.Sent = true
	src.Session = ociSession{p.memo}
	_, err := pusher.Push(ctx, at.named(p.n.tag), src)
	return err
}

// published looks at what the name means after the push.
func (p *sending) published(ctx context.Context) (backends.Image, error) {
	img, err := p.current(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist) && p.viaOCI:
		// The registry has it, which its backend has checked: the library looks
		// there now and then.
		img = backends.Image{
			Ref: p.ref, Size: p.src.Size, Digest: p.src.Digest, Version: p.src.Digest, URL: p.c.page(p.n),
		}
	case errors.Is(err, fs.ErrNotExist):
		return backends.Image{}, fmt.Errorf("%w: the library took the image and does not have it", backends.ErrBadAnswer)
	case err != nil:
		return backends.Image{}, err
	case img.Digest != "" && img.Digest != p.src.Digest:
		return backends.Image{}, fmt.Errorf("%w: the library has %s, sent was %s", backends.ErrCorrupt, img.Digest, p.src.Digest)
	case img.Size >= 0 && img.Size != p.src.Size:
		return backends.Image{}, fmt.Errorf("%w: the library has %d bytes of %d", backends.ErrCorrupt, img.Size, p.src.Size)
	}
	p.memo.Forget()
	return img, nil
}

// progress tells of bytes that are stored.
func (p *sending) progress(stored int64) {
	if p.src.Progress != nil {
		p.src.Progress(stored)
	}
}
