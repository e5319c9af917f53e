// SPDX-License-Identifier: Apache-2.0

package library

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/libapi"
)

// library sends the image by the library's own API: entity, collection, container
// and a nameless image are made as need be, the bytes are stored, and the tag comes
// last.
func (p *sending) library(ctx context.Context, way string) error {
	if p.src.Size == 0 {
		return fmt.Errorf("%w: a library has no empty images", fs.ErrInvalid)
	}
	container, err := p.container(ctx)
	if err != nil {
		return err
	}
	id, err := p.stored(ctx, container, way)
	if err != nil {
		return err
	}
	p.progress(p.src.Size)
	return p.tag(ctx, container, id)
}

// stored returns the id of the image, whose bytes are there then.
func (p *sending) stored(ctx context.Context, container, way string) (string, error) {
	// Two pushes of one file to several tags: the second finds what the first sent.
	unlock, err := p.c.commits.Lock(ctx, p.n.path()+"@"+p.src.Digest)
	if err != nil {
		return "", err
	}
	defer unlock()
	m, err := p.nameless(ctx, container)
	switch {
	case err != nil:
		return "", err
	case !m.uploaded():
		return m.ID, p.store(ctx, m.ID, way)
	case m.Size > 0 && m.Size != p.src.Size:
		return "", fmt.Errorf("%w: %s has %d bytes in the library, %d here", backends.ErrCorrupt, p.src.Digest, m.Size, p.src.Size)
	}
	return m.ID, libapi.CheckSource(p.src)
}

type identified struct {
	ID string `json:"id"`
}

// made asks for what is at path, and makes it with body if it is not there.
func (p *sending) made(ctx context.Context, path, at string, body func() (map[string]any, error)) (string, error) {
	var found identified
	err := p.c.get(ctx, path+"/"+at, &found)
	if errors.Is(err, fs.ErrNotExist) {
		var wanted map[string]any
		if wanted, err = body(); err != nil {
			return "", err
		}
		wanted["description"] = "No description" // as the clients of Sylabs write
		err = p.c.ask(ctx, http.MethodPost, path, wanted, &found)
		if taken(err) && p.c.get(ctx, path+"/"+at, &found) == nil {
			err = nil
		}
	}
	if err == nil && found.ID == "" {
		err = fmt.Errorf("%w: %s without an id", backends.ErrBadAnswer, at)
	}
	return found.ID, err
}

// taken reports whether err can mean that another push was faster: servers say 400,
// 409 or 412 for it.
func taken(err error) bool {
	return errors.Is(err, fs.ErrExist) || errors.Is(err, backends.ErrBadAnswer)
}

// container returns the id of the container, which it makes if need be.
func (p *sending) container(ctx context.Context) (string, error) {
	return p.made(ctx, containersPath, p.n.path(), func() (map[string]any, error) {
		collection, err := p.made(ctx, collectionsPath, p.n.entity+"/"+p.n.collection, func() (map[string]any, error) {
			entity, err := p.made(ctx, entitiesPath, p.n.entity, func() (map[string]any, error) {
				return map[string]any{"name": p.n.entity}, nil
			})
			return map[string]any{"name": p.n.collection, "entity": entity}, err
		})
		return map[string]any{"name": p.n.container, "collection": collection}, err
	})
}

// nameless returns the image that the library has, or makes, for the digest.
func (p *sending) nameless(ctx context.Context, container string) (image, error) {
	hash := hashOf(p.src.Digest)
	m, err := p.c.find(ctx, p.n, hash, p.c.arch)
	if errors.Is(err, fs.ErrNotExist) {
		body := map[string]any{"hash": hash, "container": container, "description": ""}
		err = p.c.ask(ctx, http.MethodPost, "/v1/images", body, &m)
		if taken(err) {
			if now, gone := p.c.find(ctx, p.n, hash, p.c.arch); gone == nil {
				m, err = now, nil
			}
		}
	}
	switch {
	case err != nil:
		return image{}, err
	case m.ID == "":
		return image{}, fmt.Errorf("%w: an image without an id", backends.ErrBadAnswer)
	case m.Hash != "" && m.Hash != hash:
		return image{}, fmt.Errorf("%w: asked for %s, the library has %.80q", backends.ErrBadAnswer, hash, m.Hash)
	}
	return m, nil
}

// store sends the bytes of the image with that id.
func (p *sending) store(ctx context.Context, id, way string) error {
	version, err := p.c.version(ctx)
	if err != nil {
		return err
	}
	if way == pushRaw || way == pushAuto && !version.atLeast(withUpload) {
		return p.raw(ctx, id)
	}
	base, err := p.c.base(ctx)
	if err != nil {
		return err
	}
	u := libapi.Upload{
		Image: id, Source: p.src, Server: p.c.ask, Store: p.c.http, Prepare: p.c.sentAway, Aborts: true,
		Target: func(address string) (*url.URL, error) { return httpx.Target(base, address) },
		State:  &p.memo.State.State, Save: p.memo.Save, Log: p.c.log,
	}
	switch way {
	case pushMultipart:
		return u.InParts(ctx)
	case pushSingle:
		return u.Whole(ctx)
	}
	err = u.Send(ctx, p.c.partSize)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
		p.c.log.Info("the image is sent to the library itself", "image", p.n.String(), "reason", err)
		return p.raw(ctx, id)
	}
	return err
}

// raw sends the bytes to the library itself, in one request. Its end is held back
// until the digest is known to be right.
func (p *sending) raw(ctx context.Context, id string) error {
	escaped, err := idPath(id)
	if err != nil {
		return err
	}
	return p.c.loggedIn(ctx, func(base *url.URL, token string) error {
		h := libapi.NewHashed(p.src.Content, 0, p.src.Size)
		h.Check = func() error { return libapi.SameDigest(p.src, h.SHA256()) }
		var sent int64
		h.Tell = func(n int) {
			sent += int64(n)
			p.progress(sent)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base.String()+filesPath+escaped, io.NopCloser(h))
		if err != nil {
			return fmt.Errorf("%w: %v", fs.ErrInvalid, err)
		}
		req.ContentLength = p.src.Size
		req.Header.Set("Content-Type", "application/octet-stream")
		authorize(req, token)
		err = p.c.object(req, nil)
		if wrong := h.Failed(); wrong != nil {
			return wrong
		}
		return err
	})
}

// tag gives the image its name.
func (p *sending) tag(ctx context.Context, container, id string) error {
	if _, err := p.c.version(ctx); err != nil { // it decides how, and is remembered
		return err
	}
	if _, done, err := p.allowed(ctx); err != nil || done {
		return err
	}
	if err := p.src.MayCommit(); err != nil {
		return err
	}
	p.memo.State.Sent = true
	p.memo.Save()
	return p.c.setTag(ctx, container, p.n.tag, id)
}
