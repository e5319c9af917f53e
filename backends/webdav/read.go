// SPDX-License-Identifier: Apache-2.0

package webdav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// Stat implements files.Store.
func (s *store) Stat(ctx context.Context, path string) (f files.File, err error) {
	n, err := s.properties(ctx, s.address(path), "0", func(r response) (err error) {
		f, err = r.file(path)
		return err
	})
	switch {
	case err != nil:
		return files.File{}, err
	case n != 1:
		return files.File{}, fmt.Errorf("%w: %d answers about one file", backends.ErrBadAnswer, n)
	case f.Folder:
		return files.File{}, backends.NotFound("that is a folder")
	case f.Version == "":
		return files.File{}, fmt.Errorf("%w: the server gives neither an ETag nor a time", backends.ErrBadAnswer)
	}
	return f, nil
}

// errStop ends a listing whose caller has had enough.
var errStop = errors.New("stop")

// List implements files.Store: one request for all.
func (s *store) List(ctx context.Context, folder, _ string) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		at, err := url.Parse(s.folder(folder))
		if err != nil {
			yield(files.File{}, err)
			return
		}
		self := false
		_, err = s.properties(ctx, s.folder(folder), "1", func(r response) error {
			path, ok := hrefPath(r.Href)
			if !ok {
				return fmt.Errorf("%w: a file at %.100q", backends.ErrBadAnswer, r.Href)
			}
			if strings.TrimSuffix(path, "/") == strings.TrimSuffix(at.Path, "/") {
				self = true
				if f, err := r.file(folder); err != nil || !f.Folder {
					return errors.Join(err, backends.NotFound("that is no folder"))
				}
				return nil
			}
			base, below := strings.CutPrefix(strings.TrimSuffix(path, "/"), at.Path)
			if !below || base == "" || base == "." || base == ".." || strings.Contains(base, "/") {
				return fmt.Errorf("%w: told of %.100q in a listing of %.100q", backends.ErrBadAnswer, path, at.Path)
			}
			f, err := r.file(files.Join(folder, base))
			s.noteLeftover(folder, f)
			if err == nil && !yield(f, nil) {
				return errStop
			}
			return err
		})
		switch {
		case errors.Is(err, errStop):
			return
		case err == nil && !self:
			err = fmt.Errorf("%w: a listing that does not name its folder", backends.ErrBadAnswer)
		}
		if err != nil {
			yield(files.File{}, err)
		}
	}
}

// Open implements files.Store.
func (s *store) Open(ctx context.Context, f files.File, off, n int64) (io.ReadCloser, error) {
	header, err := ranged.Conditions(f.Version)
	if err != nil {
		return nil, err
	}
	part := ranged.Span{Off: off, N: n}
	body, err := s.part(ctx, f, part, header)
	if errors.Is(err, errPrecondition) {
		// No weak ETag ever matches, and this may be one by now (see version): what the
		// answer says of itself decides.
		body, err = s.part(ctx, f, part, nil)
	}
	if errors.Is(err, errPrecondition) {
		return nil, backends.ErrChanged
	}
	return body, err
}

var errPrecondition = fmt.Errorf("%w: the condition does not hold", backends.ErrChanged)

func (s *store) part(ctx context.Context, f files.File, part ranged.Span, conditions http.Header) (io.ReadCloser, error) {
	q := question{method: http.MethodGet, address: s.address(f.Path), header: http.Header{}}
	maps.Copy(q.header, conditions)
	req := &http.Request{Header: q.header}
	part.Ask(req)
	resp, err := s.do(ctx, q, http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(f.Path, ".gz") {
		ranged.Stored(resp)
	}
	if etag := strong(resp.Header.Get("ETag")); strings.HasPrefix(f.Version, `"`) {
		resp.Header.Set("ETag", etag)
	} else {
		resp.Header.Del("ETag") // of which a listing says nothing
	}
	size, err := ranged.Size(resp)
	if size < 0 || f.Size < 0 {
		size = f.Size
	}
	switch {
	case resp.StatusCode == http.StatusPreconditionFailed:
		err = errPrecondition
	case err != nil:
	case resp.StatusCode/100 == 2 && !ranged.IsPage(resp.Header) && !ranged.SameVersion(resp.Header, size, f.Version):
		err = backends.ErrChanged
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return part.Body(resp, f.Size)
}
