// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/libapi"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// Push sends the image by the library API where the server has it and where that
// takes nobody else's tag away, else by the old upload. The server cannot compare
// and swap: src.Replaces is checked right before the request that publishes, which
// in the old way is the upload itself.
func (c *client) Push(ctx context.Context, ref backends.Ref, src backends.Source) (backends.Image, error) {
	if err := c.CheckName(ref); err != nil {
		return backends.Image{}, err
	}
	if !strings.HasPrefix(src.Digest, "sha256:") || backends.CheckDigest(src.Digest) != nil || src.Size < 0 {
		return backends.Image{}, fmt.Errorf("%w: source of %d bytes with the digest %q", fs.ErrInvalid, src.Size, src.Digest)
	}
	if c.login.user == "" || !c.login.known() {
		return backends.Image{}, fmt.Errorf("%w: a push needs user and token_file", backends.ErrUnauthorized)
	}
	n := split(ref)
	// A tag of the library API is one for all collections.
	unlock, err := c.commits.Lock(ctx, n.container+":"+n.tag)
	if err != nil {
		return backends.Image{}, err
	}
	defer unlock()
	p := &push{c: c, n: n, ref: ref, src: src, memo: uploads.Recall[pushState](&c.unsaved, n.String(), src, c.log)}
	if done, img, err := p.allowed(ctx); err != nil || done {
		return img, err
	}
	err = p.send(ctx)
	c.forget()
	if err != nil {
		return backends.Image{}, err
	}
	return p.published(ctx)
}

// send chooses the way and sends the image. The collection is made by the library
// API where there is one: only that can say who may see it.
func (p *push) send(ctx context.Context) error {
	err := p.c.askLibrary(ctx)
	if (isNotHere(err) || errors.Is(err, backends.ErrBadAnswer)) && p.c.way != pushLibrary {
		return p.upload(ctx)
	}
	if err != nil {
		return err
	}
	collection, err := p.collection(ctx)
	if err != nil {
		return err
	}
	if p.c.way == pushUpload {
		return p.upload(ctx)
	}
	switch err := p.alone(ctx); {
	case err == nil:
		return p.library(ctx, collection)
	case p.c.way == pushLibrary || !errors.Is(err, fs.ErrPermission) && !isNotHere(err):
		return err
	default:
		p.c.log.Info("sent by the old upload", "image", p.ref.String(), "reason", err.Error())
		return p.upload(ctx)
	}
}

// alone looks for images of the same name and tag in other collections: setting the
// tag by the library API would delete one that there is. Only names that the
// library API reads as they are can be looked for.
//
// Errors: fs.ErrPermission if there is one, or the search is not for us.
func (p *push) alone(ctx context.Context) error {
	if !p.n.inLibrary() {
		return fmt.Errorf("%w: the library API would read a tag that begins with \"sha256\" as a digest", fs.ErrPermission)
	}
	found, err := p.c.search(ctx, "/api/container/search/name/"+p.n.container+"/tag/"+p.n.tag)
	if err != nil {
		return err
	}
	for _, f := range found {
		if other := f.name(); other.collection != p.n.collection {
			return fmt.Errorf("%w: the server would delete %s, its library API has one %s:%s for all collections (push_by = %q keeps both)",
				fs.ErrPermission, other, p.n.container, p.n.tag, pushUpload)
		}
	}
	return nil
}

// A push is one on its way.
type push struct {
	c    *client
	n    name
	ref  backends.Ref
	src  backends.Source
	memo *uploads.Memo[pushState]
	lost bool // the name is there with this image's digest, but without the bytes
}

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Sent     bool   `json:"sent,omitempty"`     // the name may be ours, whatever the answer was
	MD5      string `json:"md5,omitempty"`      // of what was sent in the old way, by which the server knows it at first
	Nameless string `json:"nameless,omitempty"` // the image that the library API has made for it

	libapi.State // of an upload to the object store
}

// allowed decides whether the name may be replaced. It is done already if the
// name means the same bytes, as after an earlier try of this very push.
func (p *push) allowed(ctx context.Context) (done bool, _ backends.Image, _ error) {
	m, err := p.c.manifest(ctx, p.n)
	if errors.Is(err, fs.ErrNotExist) {
		return false, backends.Image{}, p.src.CreateAllowed()
	}
	if err != nil {
		return false, backends.Image{}, err
	}
	now := p.c.image(m, p.n)
	err = p.src.ReplaceAllowed(p.ref, now)
	switch {
	case err != nil && p.memo.State.Sent && now.Digest == "":
		// Neither "taken" nor "done" is known to be true.
		return false, backends.Image{}, fmt.Errorf("%w: the server does not say yet whether it has this image or another", backends.ErrUnavailable)
	case err != nil:
		if done, img, unknown := p.unchanged(ctx, now); done && unknown == nil {
			return true, img, nil
		}
		return false, backends.Image{}, err
	case m.Frozen:
		return false, backends.Image{}, errFrozen
	}
	return p.unchanged(ctx, now)
}

// unchanged is done if now has the bytes already. They must not be sent again by
// the old upload: the server names the file by its MD5, and deletes it together
// with the container that is replaced.
func (p *push) unchanged(ctx context.Context, now backends.Image) (done bool, _ backends.Image, _ error) {
	if strings.HasPrefix(now.Digest, "md5:") && p.memo.State.MD5 == "" {
		whole := libapi.NewHashed(p.src.Content, 0, p.src.Size).WithMD5()
		if _, err := io.Copy(io.Discard, whole); err != nil {
			return false, backends.Image{}, err
		}
		p.memo.State.MD5 = whole.MD5()
	}
	if !p.ours(now) {
		return false, backends.Image{}, nil
	}
	body, err := p.c.Open(ctx, now, 0, 1)
	switch {
	case err == nil:
		body.Close()
		img, err := p.published(ctx)
		return err == nil, img, err
	case errors.Is(err, fs.ErrNotExist) || statusOf(err) == http.StatusInternalServerError: // the view breaks without the file
		p.lost = true
		return false, backends.Image{}, nil
	}
	return false, backends.Image{}, err
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
		return backends.Image{}, fmt.Errorf("%w: the server took the image and does not have it", backends.ErrBadAnswer)
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
