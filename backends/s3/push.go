// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// maxSize is the largest object there is, in bytes.
const maxSize = 5 << 40

// Put implements files.Writer. What is not larger than a piece goes in one request, all else in
// an upload of parts, of which nothing can be seen before its end. Either is on condition that
// the key still means what is replaced.
func (b *bucket) Put(ctx context.Context, path string, src backends.Source, old string) (files.File, error) {
	if src.Size > maxSize {
		return files.File{}, fmt.Errorf("%w: %d bytes (S3 takes at most %d)", fs.ErrInvalid, src.Size, int64(maxSize))
	}
	small := src.Size <= b.piece
	if err := b.prove(ctx, old, !small); err != nil {
		return files.File{}, err
	}
	if !small {
		return b.putParts(ctx, path, src, old)
	}
	if err := b.memory.Acquire(ctx, src.Size); err != nil {
		return files.File{}, err
	}
	defer b.memory.Release(src.Size)
	text := make([]byte, src.Size)
	if n, err := src.Content.ReadAt(text, 0); int64(n) < src.Size {
		return files.File{}, fmt.Errorf("read what is to be pushed: %w", err)
	}
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(text)); sum != src.Digest {
		return files.File{}, fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, sum, src.Digest)
	}
	header, err := b.condition(ctx, path, old)
	if err != nil {
		return files.File{}, err
	}
	for name, values := range metadata(src) {
		header[name] = values
	}
	if err := src.MayCommit(); err != nil {
		return files.File{}, err
	}
	resp, err := b.do(ctx, request{method: http.MethodPut, key: b.key(path), header: header, body: text})
	if err != nil {
		return files.File{}, b.lostTo(ctx, err, path, old)
	}
	resp.Body.Close()
	return b.stored(ctx, path, src, resp.Header.Get("ETag"))
}

// condition returns the headers by which the server changes nothing but old. Where it knows
// none, and a setting says that this is known, a look has to do.
func (b *bucket) condition(ctx context.Context, path, old string) (http.Header, error) {
	if b.lookFirst && old != backends.ReplaceAny {
		now, _, err := b.stat(ctx, path, nil)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case err != nil && old != "", err == nil && old != "" && now.Version != old:
			return nil, backends.ErrChanged
		case err == nil && old == "":
			return nil, errTaken
		}
		return http.Header{}, nil
	}
	return conditions(old), nil
}

func conditions(old string) http.Header {
	switch old {
	case "":
		return http.Header{"If-None-Match": {"*"}}
	case backends.ReplaceAny:
		return http.Header{}
	}
	return http.Header{"If-Match": {quote(old)}}
}

var errTaken = backends.Saying(fs.ErrExist, "the tag was taken meanwhile")

// lostTo says what the refusal of a condition means: somebody was faster.
func (b *bucket) lostTo(ctx context.Context, err error, path, old string) error {
	switch {
	case errors.Is(err, fs.ErrExist) && old == "":
		if _, _, statErr := b.stat(ctx, path, nil); errors.Is(statErr, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s takes the mark of a deleted version for an image (%v): take another tag, or remove the mark", fs.ErrExist, b.home.Host, err)
		}
		return errTaken
	case errors.Is(err, fs.ErrExist), code(err) == "NoSuchKey":
		return backends.ErrChanged
	}
	return err
}

// metadata returns the headers by which others find an image, and we its digest.
func metadata(src backends.Source) http.Header {
	h := http.Header{
		"Content-Type": {"application/octet-stream"},
		metaSize:       {strconv.FormatInt(src.Size>>20, 10)},
		metaClient:     {"sregistry"},
		metaType:       {"container"},
		metaDigest:     {strings.TrimPrefix(src.Digest, "sha256:")},
	}
	if !src.Modified.IsZero() {
		h.Set(metaTime, fmt.Sprintf("%d.%09d", src.Modified.Unix(), src.Modified.Nanosecond()))
	}
	return h
}

// stored looks at what was pushed: the answer of a stranger is no success. If somebody has
// replaced it already, that is none of our business any more.
func (b *bucket) stored(ctx context.Context, path string, src backends.Source, tag string) (files.File, error) {
	tag = unquote(tag)
	if tag == "" {
		return files.File{}, fmt.Errorf("%w: something was stored, without an ETag", backends.ErrBadAnswer)
	}
	f, _, err := b.stat(ctx, path, nil)
	switch {
	case err == nil && f.Version != tag, errors.Is(err, fs.ErrNotExist):
		return files.File{Path: path, Size: src.Size, Version: tag, Digest: src.Digest, Modified: time.Now()}, nil
	case err != nil:
		return files.File{}, err
	case f.Size != src.Size:
		return files.File{}, fmt.Errorf("%w: %s stored %d bytes of %d", backends.ErrCorrupt, b.home.Host, f.Size, src.Size)
	}
	return f, nil
}

// Remove implements files.Writer. Not every server looks at the condition, so we do before. In
// a bucket that keeps versions they all stay.
func (b *bucket) Remove(ctx context.Context, f files.File) error {
	if err := b.still(ctx, f); err != nil {
		return err
	}
	r := request{method: http.MethodDelete, key: b.key(f.Path), header: http.Header{"If-Match": {quote(f.Version)}}}
	resp, err := b.do(ctx, r)
	if errors.Is(err, errors.ErrUnsupported) {
		r.header = nil
		resp, err = b.do(ctx, r)
	}
	if err != nil {
		return b.lostTo(ctx, err, f.Path, f.Version)
	}
	resp.Body.Close()
	return nil
}

// A pushState is what is known of an earlier try of a push.
type pushState struct {
	Upload  string    `json:"upload,omitempty"` // its id
	Started time.Time `json:"started,omitzero"`
	Piece   int64     `json:"piece,omitempty"` // size in bytes
	Tags    []string  `json:"tags,omitempty"`  // ETags of the parts; "" for one that is not stored
}

func (b *bucket) recall(path string, src backends.Source) *uploads.Memo[pushState] {
	return uploads.Recall[pushState](&b.unsaved, b.key(path), src, b.log)
}
