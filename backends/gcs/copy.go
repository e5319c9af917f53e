// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// maxCalls bounds the requests of one copy: each does at least a megabyte, usually all.
const maxCalls = 100_000

// A rewriting is how far a copy is.
// https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
type rewriting struct {
	Kind         string `json:"kind"`
	Done         bool   `json:"done"`
	RewriteToken string `json:"rewriteToken"`
	Resource     object `json:"resource"`
}

// Duplicate implements files.Duplicator. Google copies by itself, large objects in several
// calls; nothing is to be seen before the last one.
func (s *store) Duplicate(ctx context.Context, f files.File, path, old string, commit func() error) (files.File, error) {
	// With a body all metadata is that of the body.
	_, o, err := s.stat(ctx, f.Path, f.Version)
	if errors.Is(err, fs.ErrNotExist) {
		return files.File{}, s.gone(ctx, f, err)
	}
	if err != nil {
		return files.File{}, err
	}
	about := object{ContentType: o.ContentType, Metadata: maps.Clone(o.Metadata)}
	if about.Metadata[keyURI] != "" {
		about.Metadata[keyURI] = s.uri(path)
	}
	q := url.Values{"sourceGeneration": {f.Version}}
	condition(q, old)
	address := "/rewriteTo/b/" + escape(s.bucket) + "/o/" + escape(s.prefix+path)
	if commit != nil {
		if err := commit(); err != nil {
			return files.File{}, err
		}
	}
	for range maxCalls {
		var r rewriting
		err := s.call(ctx, http.MethodPost, s.object(f.Path, address, q), about, &r)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return files.File{}, s.gone(ctx, f, err)
		case err != nil:
			return files.File{}, conflict(err, old)
		case r.Kind != "storage#rewriteResponse" || !r.Done && r.RewriteToken == "":
			return files.File{}, fmt.Errorf("%w: not the answer to a copy", backends.ErrBadAnswer)
		case r.Done:
			made, err := s.file(r.Resource)
			if err == nil && (made.Path != path || made.Size != f.Size) {
				err = fmt.Errorf("%w: %.80q of %d bytes was made in place of %q of %d", backends.ErrBadAnswer, made.Path, made.Size, path, f.Size)
			}
			return made, err
		}
		q.Set("rewriteToken", r.RewriteToken)
	}
	return files.File{}, fmt.Errorf("%w: a copy without an end", backends.ErrBadAnswer)
}
