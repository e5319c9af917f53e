// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/libapi"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// Push sends the image by the library API where the server has it, else by the
// old upload. The server cannot compare and swap: src.Replaces is checked right
// before the request that publishes, which in the old way is the upload itself.
func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if err := c.checkPush(ref); err != nil {
		return backends.Image{}, err
	}
	if !strings.HasPrefix(src.Digest, "sha256:") || backends.CheckDigest(src.Digest) != nil || src.Size < 0 {
		return backends.Image{}, fmt.Errorf("%w: source of %d bytes with the digest %q", fs.ErrInvalid, src.Size, src.Digest)
	}
	if c.login.user == "" || !c.login.known() {
		return backends.Image{}, fmt.Errorf("%w: a push needs user and token_file", backends.ErrUnauthorized)
	}
	n := split(ref)
	unlock, err := c.commits.Lock(ctx, n.String())
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	p := &push{c: c, n: n, ref: ref, src: src, memo: uploads.Recall[pushState](&c.unsaved, n.String(), src, c.log)}
	if done, img, err := p.allowed(ctx); err != nil || done {
		return img, err
	}
	library, err := c.hasLibrary(ctx, n)
	if err != nil {
		return backends.Image{}, err
	}
	if library {
		err = p.library(ctx)
	} else {
		err = p.upload(ctx)
	}
	c.listing.forget()
	if err != nil {
		return backends.Image{}, err
	}
	return p.published(ctx)
}

// hasLibrary decides which way n is sent.
func (c *client) hasLibrary(ctx context.Context, n name) (bool, error) {
	switch {
	case c.way == pushUpload || c.way == pushAuto && n.nested():
		return false, nil
	case n.nested():
		return false, fmt.Errorf("%w: the library API has collections of one part only", fs.ErrInvalid)
	}
	err := c.bearer(ctx, http.MethodGet, "/v1/token-status", nil, nil)
	if c.way == pushAuto && (elsewhere(err) || errors.Is(err, backends.ErrCorrupt)) {
		return false, nil
	}
	return err == nil, err
}

// A push is one on its way.
type push struct {
	c    *client
	n    name
	ref  backends.Ref
	src  backends.Source
	memo *uploads.Memo[pushState]
}

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Sent bool   `json:"sent,omitempty"` // the name may be ours, whatever the answer was
	MD5  string `json:"md5,omitempty"`  // of what was sent in the old way, by which the server knows it at first

	libapi.State // of an upload to the object store
}

// allowed decides whether the name may be replaced. It is done already if the
// name means what an earlier try of this very push sent.
func (p *push) allowed(ctx context.Context) (done bool, _ backends.Image, _ error) {
	m, err := p.c.manifest(ctx, p.n)
	if errors.Is(err, fs.ErrNotExist) {
		return false, backends.Image{}, p.src.ReplaceAllowed(backends.Image{}, false)
	}
	if err != nil {
		return false, backends.Image{}, err
	}
	now := p.c.image(m, p.n)
	err = p.src.ReplaceAllowed(now, true)
	switch {
	case err != nil && p.memo.State.Sent && p.ours(now):
		img, err := p.published(ctx)
		return err == nil, img, err
	case err != nil && p.memo.State.Sent && now.Digest == "":
		// Neither "taken" nor "done" is known to be true.
		return false, backends.Image{}, fmt.Errorf("%w: the server does not say yet whether it has this image or another", backends.ErrUnavailable)
	case err != nil:
		return false, backends.Image{}, err
	case m.Frozen:
		return false, backends.Image{}, errFrozen
	}
	return false, backends.Image{}, nil
}

var errFrozen = fmt.Errorf("%w: the image is frozen on the server; its owner can unfreeze it there", fs.ErrPermission)

// ours reports whether the server's image is, by its digest, what is pushed.
func (p *push) ours(now backends.Image) bool {
	return now.Digest == p.src.Digest || p.memo.State.MD5 != "" && now.Digest == "md5:"+p.memo.State.MD5
}

// published looks at what the name means after the push.
func (p *push) published(ctx context.Context) (backends.Image, error) {
	m, err := p.c.manifest(ctx, p.n)
	if errors.Is(err, fs.ErrNotExist) {
		return backends.Image{}, fmt.Errorf("%w: the server took the image and does not have it", backends.ErrCorrupt)
	}
	if err != nil {
		return backends.Image{}, err
	}
	img := p.c.image(m, p.n)
	if img.Digest != "" && !p.ours(img) {
		return backends.Image{}, fmt.Errorf("%w: the server stored %s, sent was %s", backends.ErrCorrupt, img.Digest, p.src.Digest)
	}
	p.c.size(ctx, &img)
	if img.Size >= 0 && img.Size != p.src.Size {
		return backends.Image{}, fmt.Errorf("%w: the server stored %d bytes of %d", backends.ErrCorrupt, img.Size, p.src.Size)
	}
	p.memo.Forget()
	return img, nil
}

// progress tells of bytes that are stored.
func (p *push) progress(stored int64) {
	if p.src.Progress != nil {
		p.src.Progress(stored)
	}
}
