// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	// tagsPath is where the library API names an image.
	tagsPath = "/v1/tags/"
	// bigUpload is the size above which an image is sent in parts (64 MiB, as
	// "singularity push" has it), maxSingle what S3 takes in one request.
	bigUpload = 64 << 20
	maxSingle = 5 << 30
	// maxParts is how many parts S3 takes, maxPart how large one may be.
	maxParts = 10_000
	maxPart  = 5 << 30
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
	} else if err := p.checkSource(); err != nil {
		return err
	}
	p.progress(p.src.Size)
	if done, _, err := p.allowed(ctx); err != nil || done {
		return err
	}
	p.state.Sent = true
	p.save()
	return p.c.bearer(ctx, http.MethodPost, tagsPath+escape(collection), map[string]string{"Tag": p.n.tag, "ImageID": image}, nil)
}

// checkSource reads the content for its digest alone.
func (p *push) checkSource() error {
	whole := newHashed(p.src.Content, 0, p.src.Size)
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return err
	}
	return p.sameDigest(whole.sha256())
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
	path := "/v2/imagefile/" + escape(image)
	if p.src.Size <= p.c.partSize {
		return p.storeWhole(ctx, path)
	}
	err := p.storeParts(ctx, image, path)
	if errors.Is(err, errNoParts) && p.src.Size <= maxSingle {
		p.c.log.Info("the image is sent in one piece", "image", p.n.String(), "reason", err)
		return p.storeWhole(ctx, path)
	}
	return err
}

// storeWhole sends all bytes in one request.
func (p *push) storeWhole(ctx context.Context, path string) error {
	var opened struct {
		UploadURL string `json:"uploadURL"`
	}
	body := map[string]any{"filesize": p.src.Size, "sha256sum": p.src.Digest[len("sha256:"):]}
	if err := p.c.bearer(ctx, http.MethodPost, path, body, &opened); err != nil {
		return err
	}
	h := newHashed(p.src.Content, 0, p.src.Size)
	h.check = func() error { return p.sameDigest(h.sha256()) }
	var sent int64
	h.tell = func(n int) {
		sent += int64(n)
		p.progress(sent)
	}
	if _, err := p.put(ctx, opened.UploadURL, h, p.src.Size, ""); err != nil {
		return err
	}
	return p.c.bearer(ctx, http.MethodPut, path+"/_complete", map[string]any{}, nil)
}

// put sends a body to a presigned URL, which is all the permission it needs. It
// returns the ETag.
func (p *push) put(ctx context.Context, address string, h *hashed, size int64, sha string) (string, error) {
	u, err := p.c.target(address)
	if err != nil {
		return "", err
	}
	if size == 0 {
		if err := h.check(); err != nil {
			return "", err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.String(), io.NopCloser(h))
	if err != nil {
		return "", fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
	}
	if sha != "" {
		req.Header.Set("X-Amz-Content-Sha256", sha)
	}
	resp, err := httpx.Do(p.c.http, req, notOK[:]...)
	if wrong := h.failed(); wrong != nil {
		if err == nil {
			resp.Body.Close()
		}
		return "", wrong
	}
	if err != nil {
		return "", err
	}
	if resp.StatusCode/100 != 2 {
		return "", answer(resp)
	}
	resp.Body.Close()
	return resp.Header.Get("ETag"), nil
}

var errNoParts = errors.New("the server takes no parts")

// storeParts sends the bytes part by part, and goes on where the session says
// that it was broken off.
func (p *push) storeParts(ctx context.Context, image, path string) error {
	if err := p.openParts(ctx, image, path); err != nil {
		return err
	}
	whole := sha256.New()
	for number, off := 1, int64(0); off < p.src.Size; number, off = number+1, off+p.state.PartSize {
		n := min(p.state.PartSize, p.src.Size-off)
		part := newHashed(p.src.Content, off, n)
		if _, err := io.Copy(whole, part); err != nil {
			return err
		}
		sha := part.sha256()
		if number <= len(p.state.Parts) && p.state.Parts[number-1].SHA256 == sha {
			p.progress(off + n)
			continue
		}
		p.state.Parts = p.state.Parts[:min(len(p.state.Parts), number-1)]
		token, err := p.putPart(ctx, path, number, off, n, sha)
		if err != nil {
			return p.partError(err, number)
		}
		p.state.Parts = append(p.state.Parts, storedPart{SHA256: sha, Token: token})
		p.save()
	}
	if err := p.sameDigest(hex.EncodeToString(whole.Sum(nil))); err != nil {
		return err
	}
	completed := make([]map[string]any, len(p.state.Parts))
	for i, part := range p.state.Parts {
		completed[i] = map[string]any{"partNumber": i + 1, "token": part.Token}
	}
	err := p.c.bearer(ctx, http.MethodPut, path+"/_multipart_complete",
		map[string]any{"uploadID": p.state.Upload, "completedParts": completed}, nil)
	if err != nil && ctx.Err() == nil && !errors.Is(err, backends.ErrUnavailable) {
		p.forgetParts() // what the store has is not what was noted
	}
	return err
}

// openParts begins an upload in parts, unless one is under way for the image.
func (p *push) openParts(ctx context.Context, image, path string) error {
	if p.state.Image == image && p.state.Upload != "" && 0 < p.state.PartSize && p.state.PartSize <= maxPart {
		return nil
	}
	p.forgetParts()
	var opened struct {
		UploadID   string `json:"uploadID"`
		PartSize   int64  `json:"partSize"`
		TotalParts int64  `json:"totalParts"`
	}
	err := p.c.bearer(ctx, http.MethodPost, path+"/_multipart", map[string]any{"filesize": p.src.Size}, &opened)
	if elsewhere(err) {
		return fmt.Errorf("%w: %v", errNoParts, err)
	}
	if err != nil {
		return err
	}
	if opened.UploadID == "" || opened.PartSize <= 0 || opened.PartSize > maxPart || p.src.Size/opened.PartSize >= maxParts {
		return fmt.Errorf("%w: an upload in parts of %d bytes", backends.ErrCorrupt, opened.PartSize)
	}
	p.state.Image, p.state.Upload, p.state.PartSize = image, opened.UploadID, opened.PartSize
	p.save()
	return nil
}

func (p *push) forgetParts() {
	p.state.Image, p.state.Upload, p.state.PartSize, p.state.Parts = "", "", 0, nil
	p.save()
}

// putPart sends one part. Its bytes are hashed a second time, and the end is
// held back if they changed.
func (p *push) putPart(ctx context.Context, path string, number int, off, n int64, sha string) (token string, err error) {
	var signed struct {
		PresignedURL string `json:"presignedURL"`
	}
	body := map[string]any{"partSize": n, "uploadID": p.state.Upload, "partNumber": number, "sha256sum": sha}
	if err := p.c.bearer(ctx, http.MethodPut, path+"/_multipart", body, &signed); err != nil {
		return "", err
	}
	h := newHashed(p.src.Content, off, n)
	h.check = func() error {
		if h.sha256() == sha {
			return nil
		}
		return fmt.Errorf("%w: the source changed while it was read", backends.ErrCorrupt)
	}
	sent := off
	h.tell = func(n int) {
		sent += int64(n)
		p.progress(sent)
	}
	token, err = p.put(ctx, signed.PresignedURL, h, n, sha)
	if err == nil && token == "" {
		err = fmt.Errorf("%w: a part was stored without an ETag", backends.ErrCorrupt)
	}
	return token, err
}

// partError decides how to go on after a part was refused: without parts if it
// was the first, else from the beginning.
func (p *push) partError(err error, number int) error {
	if !stale(err) {
		return err
	}
	p.forgetParts()
	if number == 1 {
		return fmt.Errorf("%w: %v", errNoParts, err)
	}
	return fmt.Errorf("%w: the upload is not known any more: %v", backends.ErrUnavailable, err)
}
