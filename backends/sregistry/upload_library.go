// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/libapi"
)

const (
	// tagsPath is where the library API names an image.
	tagsPath = "/v1/tags/"
	// bigUpload is the size above which an image is sent in parts (64 MiB, as
	// "singularity push" has it).
	bigUpload = 64 << 20
)

// library sends the image to the object store: the server makes a nameless image
// for the digest, hands out presigned URLs for its bytes, and the tag comes last.
func (p *push) library(ctx context.Context, collection string) error {
	known := p.memo.State.Nameless != ""
	err := p.throughStore(ctx, collection)
	if known && p.memo.State.Nameless != "" && errors.Is(err, fs.ErrNotExist) && !p.memo.State.Sent {
		// Whoever runs the server clears away nameless images from time to time.
		p.forgetNameless()
		err = p.throughStore(ctx, collection)
	}
	p.leave(ctx, err)
	return err
}

func (p *push) throughStore(ctx context.Context, collection string) error {
	image, err := p.nameless(ctx)
	if err != nil {
		return err
	}
	if err := p.store(ctx, image); err != nil {
		return err
	}
	p.progress(p.src.Size)
	if done, _, err := p.allowed(ctx); err != nil || done {
		return err
	}
	if err := p.alone(ctx); err != nil {
		return err
	}
	if err := p.src.MayCommit(); err != nil {
		return err
	}
	p.memo.State.Sent = true
	p.memo.Save()
	return p.c.bearer(ctx, http.MethodPost, tagsPath+escape(collection), map[string]string{"Tag": p.n.tag, "ImageID": image}, nil)
}

// leaveTime bounds the request that deletes what a push leaves, which is made also when the
// push was ended.
const leaveTime = 10 * time.Second

// leave deletes the nameless image that a push with that end would leave on the server. It
// stays if another try can go on with the parts that are there, and from when it may have
// its name: the request that deletes does not look at that.
func (p *push) leave(ctx context.Context, err error) {
	image := p.memo.State.Nameless
	again := ctx.Err() != nil || errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrRateLimited) || errors.Is(err, context.DeadlineExceeded)
	if image == "" || p.memo.State.Sent || again && len(p.memo.State.Parts) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	err = p.c.bearer(ctx, http.MethodPut, "/v2/imagefile/"+escape(image)+"/_multipart_abort", map[string]any{}, nil)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		p.forgetNameless()
		return
	}
	p.c.log.Warn("an image without a name stays on the server", "image", image, "for", p.ref.String(), "err", err)
}

func (p *push) forgetNameless() {
	p.memo.State.Nameless, p.memo.State.State = "", libapi.State{}
	p.memo.Save()
}

type identified struct {
	ID word `json:"id"`
}

// collection returns the number of the collection, which it makes if need be. Who
// may see one that is there is not changed.
func (p *push) collection(ctx context.Context) (string, error) {
	var found struct {
		identified
		Private bool `json:"private"`
	}
	user := escape(p.c.login.user)
	find := func() error {
		return p.c.bearer(ctx, http.MethodGet, "/v1/collections/"+user+"/"+p.n.collection, nil, &found)
	}
	err := find()
	if errors.Is(err, fs.ErrNotExist) {
		entity, noUser := p.c.entity(ctx)
		if noUser != nil {
			return "", noUser
		}
		err = p.c.bearer(ctx, http.MethodPost, "/v1/collections",
			map[string]any{"entity": entity, "name": p.n.collection, "private": p.c.private}, &found)
		if errors.Is(err, fs.ErrPermission) && find() == nil {
			err = nil // another push made it in this moment
		} else if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w (a push into a collection needs to be its owner)", err)
		}
	}
	if err == nil && found.ID == "" {
		err = fmt.Errorf("%w: a collection without an id", backends.ErrBadAnswer)
	}
	if err == nil && found.Private {
		p.c.signedOnly.Put(p.n.collection, struct{}{})
	}
	return string(found.ID), err
}

// nameless returns an image for the digest whose bytes are to come: that of an earlier
// try, or one that the server makes. It makes another each time that it is asked, and does
// not say whether it has the bytes already.
func (p *push) nameless(ctx context.Context) (id string, err error) {
	if p.memo.State.Nameless != "" {
		return p.memo.State.Nameless, nil
	}
	var found identified
	path := "/v1/images/" + escape(p.c.login.user) + "/" + p.n.collection + "/" + p.n.container +
		":sha256." + p.src.Digest[len("sha256:"):] + "?arch=" + escape(p.c.arch)
	err = p.c.bearer(ctx, http.MethodGet, path, nil, &found)
	switch {
	case err != nil:
		return "", err
	case found.ID == "":
		return "", fmt.Errorf("%w: an image without an id", backends.ErrBadAnswer)
	}
	p.memo.State.Nameless = string(found.ID)
	p.memo.Save()
	return string(found.ID), nil
}

// store sends the bytes, in parts if there are many.
func (p *push) store(ctx context.Context, image string) error {
	u := libapi.Upload{
		Image: image, Source: p.src, Server: p.c.bearer, Store: p.c.http, Target: p.c.target,
		AlwaysSum: true, State: &p.memo.State.State, Save: p.memo.Save, Log: p.c.log,
	}
	return u.Send(ctx, p.c.partSize)
}
