// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

const (
	googles  = "https://storage.googleapis.com"
	pageSize = 1000     // objects of a page; Google gives no more
	maxPage  = 16 << 20 // bytes of one: each object can have 8 KiB of metadata
)

var (
	_ files.Duplicator = (*store)(nil)
	_ files.Historian  = (*store)(nil)
)

// A store is a bucket, or a folder in one. The paths of files.Store are below prefix.
type store struct {
	remote string
	base   string // "https://HOST[:PORT]"
	bucket string
	prefix string // "" or "FOLDER/"
	public bool
	login  *google.Login
	log    *slog.Logger

	ref     func(path string) (ref backends.Ref, ok bool)
	unsaved uploads.Unsaved // uploads that were broken off
	small   int64           // bytes that go in one request
	chunk   int64           // bytes of each request of what is larger, a multiple of 256 KiB
}

// escape escapes a part of an address as Google wants it, of which url.PathEscape leaves
// some as they are.
// https://cloud.google.com/storage/docs/request-endpoints#encoding
func escape(name string) string { return strings.ReplaceAll(url.QueryEscape(name), "+", "%20") }

func (s *store) objects(q url.Values) string {
	return s.base + "/storage/v1/b/" + escape(s.bucket) + "/o?" + q.Encode()
}

func (s *store) object(path, more string, q url.Values) string {
	return s.base + "/storage/v1/b/" + escape(s.bucket) + "/o/" + escape(s.prefix+path) + more + "?" + q.Encode()
}

// get reads the JSON at an address into v.
func (s *store) get(ctx context.Context, address string, v any) error {
	return s.call(ctx, http.MethodGet, address, nil, v)
}

// call sends body, if not nil, as JSON, and reads the JSON of the answer into v, if not nil.
//
// Errors: those of google.Login's Do; backends.ErrBadAnswer.
func (s *store) call(ctx context.Context, method, address string, body, v any) error {
	req, err := httpx.NewRequest(ctx, method, address, body)
	if err != nil {
		return err
	}
	resp, err := s.login.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if v == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return backends.TransportError(err)
	case len(text) > maxPage:
		return fmt.Errorf("%w: an answer of more than %d bytes", backends.ErrBadAnswer, maxPage)
	}
	return httpx.Decode(text, v)
}

// Stat implements files.Store.
func (s *store) Stat(ctx context.Context, path string) (files.File, error) {
	f, _, err := s.stat(ctx, path, "")
	return f, err
}

// StatVersion implements files.VersionKeeper: the versions are generations.
func (s *store) StatVersion(ctx context.Context, path, version string) (files.File, error) {
	if !isNumber(version) {
		return files.File{}, backends.NotFound("%q is no generation", version)
	}
	f, _, err := s.stat(ctx, path, version)
	return f, err
}

func (s *store) stat(ctx context.Context, path, generation string) (files.File, object, error) {
	q := url.Values{"fields": {objectFields}}
	if generation != "" {
		q.Set("generation", generation)
	}
	var o object
	if err := s.get(ctx, s.object(path, "", q), &o); err != nil {
		return files.File{}, o, err
	}
	f, err := s.file(o)
	if err == nil && (f.Path != path || generation != "" && f.Version != generation) {
		err = fmt.Errorf("%w: %.80q in place of another object", backends.ErrBadAnswer, o.Name)
	}
	return f, o, err
}

// Open implements files.Store. A read of the whole is compared with the CRC32C that Google
// tells with it.
func (s *store) Open(ctx context.Context, f files.File, off, n int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.object(f.Path, "", url.Values{"alt": {"media"}, "generation": {f.Version}}), nil)
	if err != nil {
		return nil, err
	}
	span := ranged.Span{Off: off, N: n}
	span.Ask(req)
	resp, err := s.login.Do(req, http.StatusRequestedRangeNotSatisfiable)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.gone(ctx, f, err)
	}
	if err != nil {
		return nil, err
	}
	if generation := resp.Header.Get("X-Goog-Generation"); generation != "" && generation != f.Version {
		resp.Body.Close()
		return nil, fmt.Errorf("%w: generation %.20q in place of %s", backends.ErrBadAnswer, generation, f.Version)
	}
	body, err := span.Body(resp, f.Size)
	if sum, ok := crcOf(resp.Header); ok && err == nil && off == 0 && n > 0 && n == f.Size {
		body = &checked{ReadCloser: body, left: n, want: sum}
	}
	return body, err
}

// gone says what it means that a generation is not there.
func (s *store) gone(ctx context.Context, f files.File, err error) error {
	if now, statErr := s.Stat(ctx, f.Path); statErr == nil && now.Version != f.Version {
		return backends.ErrChanged
	}
	return err
}

// A listing is a page of objects.
// https://cloud.google.com/storage/docs/json_api/v1/objects/list
type listing struct {
	Kind          string   `json:"kind"`
	NextPageToken string   `json:"nextPageToken"`
	Prefixes      []string `json:"prefixes"`
	Items         []object `json:"items"`
}

// check reports whether it is one: an empty one has nothing else.
func (l listing) check() error {
	if l.Kind != "storage#objects" {
		return fmt.Errorf("%w: not a list of objects", backends.ErrBadAnswer)
	}
	return nil
}

// noBucket is err of a listing, whose 404 can only mean the bucket: a folder that is not
// there is an empty one.
func (s *store) noBucket(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return backends.NotFound("there is no bucket %q (set bucket to one that is there, or create it)", s.bucket)
	}
	return err
}

// List implements files.Store. A page has a thousand objects or folders.
func (s *store) List(ctx context.Context, folder, prefix string) iter.Seq2[files.File, error] {
	return s.pages(ctx, folder, prefix, false)
}

// History implements files.Historian.
func (s *store) History(ctx context.Context, folder, prefix string) iter.Seq2[files.File, error] {
	return s.pages(ctx, folder, prefix, true)
}

// pages is List, or History.
func (s *store) pages(ctx context.Context, folder, prefix string, versions bool) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		within := s.prefix
		if folder != "" {
			within += folder + "/"
		}
		q := url.Values{
			"prefix": {within + prefix}, "delimiter": {"/"}, "maxResults": {strconv.Itoa(pageSize)},
			"fields": {"kind,nextPageToken,prefixes,items(" + objectFields + ")"},
		}
		if versions {
			q.Set("versions", "true")
		}
		seen, empty := map[string]bool{}, true
		for {
			page, err := s.listing(ctx, folder, q)
			if err == nil && seen[page.NextPageToken] {
				err = fmt.Errorf("%w: a listing without an end", backends.ErrBadAnswer)
			}
			if err == nil && page.NextPageToken == "" && empty && folder != "" && len(page.Items)+len(page.Prefixes) == 0 {
				err = backends.NotFound("no such folder") // there is one if something is in it
			}
			if err != nil {
				yield(files.File{}, err)
				return
			}
			empty = empty && len(page.Items)+len(page.Prefixes) == 0
			if !s.page(page, within, yield) || page.NextPageToken == "" {
				return
			}
			seen[page.NextPageToken] = true
			q.Set("pageToken", page.NextPageToken)
		}
	}
}

// listing asks for one page.
func (s *store) listing(ctx context.Context, folder string, q url.Values) (page listing, err error) {
	if err = s.get(ctx, s.objects(q), &page); err == nil {
		err = page.check()
	}
	switch {
	case err != nil && q.Has("pageToken"):
		err = backends.BrokenOff(err)
	case err != nil && folder == "":
		err = s.noBucket(err)
	}
	return page, err
}

// page yields what is in a page and reports whether to go on.
func (s *store) page(page listing, within string, yield func(files.File, error) bool) bool {
	for _, prefix := range page.Prefixes {
		part, ok := strings.CutPrefix(strings.TrimSuffix(prefix, "/"), within)
		if !ok {
			yield(files.File{}, fmt.Errorf("%w: the folder %.80q is in another one", backends.ErrBadAnswer, prefix))
			return false
		}
		if part == "" || strings.Contains(part, "/") {
			continue // "a//b": there is no such name here
		}
		if !yield(files.File{Path: strings.TrimPrefix(within+part, s.prefix), Folder: true}, nil) {
			return false
		}
	}
	for _, o := range page.Items {
		if strings.HasSuffix(o.Name, "/") {
			continue // with which the console shows an empty folder
		}
		f, err := s.file(o)
		if err == nil && !strings.HasPrefix(o.Name, within) {
			err = fmt.Errorf("%w: the object %.80q is in another folder", backends.ErrBadAnswer, o.Name)
		}
		if !yield(f, err) || err != nil {
			return false
		}
	}
	return true
}

// Remove implements files.Writer. In a bucket that keeps versions this one is kept as an older one.
func (s *store) Remove(ctx context.Context, f files.File) error {
	err := s.call(ctx, http.MethodDelete, s.object(f.Path, "", url.Values{"ifGenerationMatch": {f.Version}}), nil, nil)
	if google.Status(err) == http.StatusPreconditionFailed {
		return backends.ErrChanged
	}
	return err
}
