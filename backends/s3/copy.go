// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7/pkg/s3utils"
	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// copySize is how much the service copies by one request, in bytes: it takes up to 5 GiB, for
// which an answer takes minutes.
const copySize = 1 << 30

// Duplicate implements files.Duplicator. CopyObject would do it in one request, but few servers
// take a condition for its target; for the end of an upload in parts most do, whose parts can be
// copied. They are in the same bucket, so nothing travels.
func (b *bucket) Duplicate(ctx context.Context, f files.File, path, old string, commit func() error) (files.File, error) {
	if f.Size == 0 {
		return files.File{}, fmt.Errorf("%w: of nothing no part can be copied", errors.ErrUnsupported)
	}
	if err := b.prove(ctx, old, true); err != nil {
		return files.File{}, err
	}
	now, header, err := b.stat(ctx, f.Path, byID(f.ID))
	if err != nil {
		return files.File{}, err
	}
	if now.Version != f.Version {
		return files.File{}, backends.ErrChanged
	}
	id, err := b.begin(ctx, path, kept(header))
	if err != nil {
		return files.File{}, err
	}
	b.ledger.note(b.where(), b.key(path), id)
	tags, err := b.copyParts(ctx, now, path, id)
	if err == nil && byID(now.ID) == nil { // not every server has looked at the condition
		err = b.still(ctx, now)
	}
	tag := ""
	if err == nil {
		tag, err = b.complete(ctx, path, id, tags, old, commit)
	}
	if err != nil {
		// Nobody goes on with a copy: it is made anew as fast. Also where the caller has gone.
		if abortErr := b.abort(context.WithoutCancel(ctx), b.key(path), id); abortErr == nil {
			b.ledger.forget(id)
		}
		return files.File{}, err
	}
	b.ledger.forget(id)
	return b.stored(ctx, path, backends.Source{Size: now.Size, Digest: now.Digest}, tag)
}

// still reports whether a file is that version.
//
// Errors: backends.ErrChanged.
func (b *bucket) still(ctx context.Context, f files.File) error {
	now, _, err := b.stat(ctx, f.Path, nil)
	if err == nil && now.Version != f.Version {
		err = backends.ErrChanged
	}
	return err
}

// kept returns what goes with the bytes of an object.
func kept(h http.Header) http.Header {
	with := http.Header{}
	for name, values := range h {
		if strings.HasPrefix(name, "X-Amz-Meta-") || name == "Content-Type" {
			with[name] = values
		}
	}
	return with
}

// copyParts lets the service copy f, if it still is that version.
func (b *bucket) copyParts(ctx context.Context, f files.File, path, id string) ([]string, error) {
	from := "/" + s3utils.EncodePath(b.name+"/"+b.key(f.Path))
	if q := byID(f.ID); q != nil {
		from += "?" + q.Encode()
	}
	tags := make([]string, parts(f.Size, b.copyPiece))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range tags {
		first := int64(i) * b.copyPiece
		header := http.Header{"X-Amz-Copy-Source": {from}, "X-Amz-Copy-Source-If-Match": {quote(f.Version)}}
		header.Set("X-Amz-Copy-Source-Range", fmt.Sprintf("bytes=%d-%d", first, min(first+b.copyPiece, f.Size)-1))
		g.Go(func() error {
			return backends.Guard(nil, func() (err error) {
				tags[i], err = b.copyPart(ctx, request{method: http.MethodPut, key: b.key(path), query: partOf(id, i), header: header})
				return err
			})
		})
	}
	return tags, backends.Raise(g.Wait())
}

func (b *bucket) copyPart(ctx context.Context, r request) (tag string, err error) {
	var copied struct {
		XMLName xml.Name `xml:"CopyPartResult"`
		ETag    string
	}
	if err := b.ask(ctx, r, &copied); err != nil {
		if errors.Is(err, fs.ErrExist) { // 412
			return "", backends.ErrChanged
		}
		return "", err
	}
	if tag = unquote(copied.ETag); tag == "" {
		return "", fmt.Errorf("%w: a part was copied, without an ETag", backends.ErrBadAnswer)
	}
	return tag, nil
}
