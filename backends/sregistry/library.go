// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

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
func (p *push) library(ctx context.Context) error {
	collection, err := p.collection(ctx)
	if err != nil {
		return err
	}
	image, stored, err := p.nameless(ctx)
	if err != nil {
		return err
	}
	if !stored {
		if err := p.store(ctx, image); err != nil {
			return err
		}
	} else if err := libapi.CheckSource(p.src); err != nil {
		return err
	}
	p.progress(p.src.Size)
	if done, _, err := p.allowed(ctx); err != nil || done {
		return err
	}
	if err := p.src.MayCommit(); err != nil {
		return err
	}
	p.memo.State.Sent = true
	p.memo.Save()
	return p.c.bearer(ctx, http.MethodPost, tagsPath+escape(collection), map[string]string{"Tag": p.n.tag, "ImageID": image}, nil)
}

type identified struct {
	ID word `json:"id"`
}

// collection returns the number of the collection, which it makes if need be.
func (p *push) collection(ctx context.Context) (string, error) {
	var found identified
	user := escape(p.c.login.user)
	err := p.c.bearer(ctx, http.MethodGet, "/v1/collections/"+user+"/"+p.n.collection, nil, &found)
	if errors.Is(err, fs.ErrNotExist) {
		var entity identified
		if err := p.c.bearer(ctx, http.MethodGet, "/v1/entities/"+user, nil, &entity); err != nil {
			return "", err
		}
		err = p.c.bearer(ctx, http.MethodPost, "/v1/collections",
			map[string]any{"entity": string(entity.ID), "name": p.n.collection, "private": false}, &found)
	}
	if err == nil && found.ID == "" {
		err = fmt.Errorf("%w: a collection without an id", backends.ErrCorrupt)
	}
	return string(found.ID), err
}

// nameless returns the image that the server has, or makes, for the digest, and
// whether its bytes are there.
func (p *push) nameless(ctx context.Context) (id string, stored bool, err error) {
	var found struct {
		ID       word   `json:"id"`
		Hash     string `json:"hash"`
		Uploaded bool   `json:"uploaded"`
	}
	path := "/v1/images/" + escape(p.c.login.user) + "/" + p.n.collection + "/" + p.n.container +
		":sha256." + p.src.Digest[len("sha256:"):] + "?arch=" + escape(p.c.arch)
	err = p.c.bearer(ctx, http.MethodGet, path, nil, &found)
	if err == nil && found.ID == "" {
		err = fmt.Errorf("%w: an image without an id", backends.ErrCorrupt)
	}
	// "Uploaded" counts only beside the digest: a name may have been given
	// before its bytes came.
	_, digest := parseVersion(found.Hash)
	return string(found.ID), found.Uploaded && digest == p.src.Digest, err
}

// store sends the bytes, in parts if there are many.
func (p *push) store(ctx context.Context, image string) error {
	u := libapi.Upload{
		Image: image, Source: p.src, Server: p.c.bearer, Store: p.c.http, Target: p.c.target,
		AlwaysSum: true, State: &p.memo.State.State, Save: p.memo.Save, Log: p.c.log,
	}
	return u.Send(ctx, p.c.partSize)
}
