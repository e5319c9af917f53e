// SPDX-License-Identifier: Apache-2.0

package globus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// A store is the client as package files needs it.
type store struct{ *client }

var _ files.Renamer = store{}

// version is what stands for the bytes of a file: Globus keeps neither a digest nor an ETag.
// Other bytes of the same size within one second would have the same: see Put.
func version(modified time.Time, size int64) string {
	if modified.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s-%d", modified.UTC().Format("20060102T150405Z"), size)
}

// file returns what a document tells; ok is false for what is neither a file nor a folder.
func (f fileDocument) file(path string) (file files.File, ok bool, err error) {
	switch f.Type {
	case "dir":
		return files.File{Path: path, Folder: true}, true, nil
	case "file":
	default:
		return file, false, nil
	}
	if f.Size == nil || *f.Size < 0 {
		return file, false, fmt.Errorf("%w: a file without a size", backends.ErrBadAnswer)
	}
	at := f.modified()
	if at.IsZero() {
		return file, false, fmt.Errorf("%w: a file without a time (last_modified), by which to know its version", backends.ErrBadAnswer)
	}
	return files.File{Path: path, Size: *f.Size, Modified: at, Version: version(at, *f.Size)}, true, nil
}

// Stat implements files.Store.
func (s store) Stat(ctx context.Context, path string) (files.File, error) {
	p, err := s.resolve(ctx, path)
	if err != nil {
		return files.File{}, err
	}
	return s.statAt(ctx, p, path)
}

// statAt is Stat for a path that is at p.
func (s store) statAt(ctx context.Context, p place, path string) (files.File, error) {
	d, err := s.stat(ctx, p)
	if err != nil {
		return files.File{}, err
	}
	f, ok, err := d.file(path)
	if err == nil && (!ok || f.Folder) {
		err = backends.NotFound("not a file, but a %q", d.Type)
	}
	return f, err
}

// List implements files.Store.
func (s store) List(ctx context.Context, folder, prefix string) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		if folder == "" && !s.single() {
			s.listEndpoints(ctx, yield)
			return
		}
		p, err := s.resolve(ctx, folder)
		if err != nil {
			yield(files.File{}, s.rootError(folder, err, true))
			return
		}
		for offset := 0; ; {
			var failed error
			stopped := false
			list, err := s.ls(ctx, p, nameFilter(prefix), s.page, offset, func(d fileDocument) bool {
				f, ok, err := d.file(files.Join(folder, d.Name))
				if failed = err; err == nil && ok {
					stopped = !yield(f, nil)
				}
				return failed == nil && !stopped
			})
			if err == nil {
				err = failed
			}
			switch offset += list.n; {
			case stopped:
				return
			case err != nil && offset > list.n:
				err = backends.BrokenOff(err)
			case err != nil:
				err = s.rootError(folder, err, s.root == "")
			case list.Total == nil && list.n < s.page, list.Total != nil && offset >= *list.Total:
				return
			case list.n == 0:
				err = fmt.Errorf("%w: more than %d files, and no more come", backends.ErrBadAnswer, offset)
			}
			if err != nil {
				yield(files.File{}, err)
				return
			}
		}
	}
}

// rootError tells a root that is not there yet, since nothing was pushed to path, from one that
// cannot be reached: exists says that it has to be there.
func (s store) rootError(folder string, err error, exists bool) error {
	if folder == "" && errors.Is(err, fs.ErrNotExist) && (exists || !errors.Is(err, errNoPath)) {
		return fmt.Errorf("%w: the collection is not there: %v", backends.ErrBadAnswer, err)
	}
	return err
}

// nameFilter asks for names that begin with prefix, or with as much of it as means nothing else
// in a filter; "" for all.
func nameFilter(prefix string) string {
	n := 0
	for n < len(prefix) && isWord(prefix[n]) {
		n++
	}
	if n == 0 {
		return ""
	}
	return "name:~" + prefix[:n] + "*"
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// Open implements files.Store. The server has no precondition for a version, so what it says of
// the file that it has opened is compared; where that is nothing, or something else, the Transfer
// API is asked after the file was opened.
func (s store) Open(ctx context.Context, f files.File, off, n int64) (io.ReadCloser, error) {
	p, err := s.resolve(ctx, f.Path)
	if err != nil {
		return nil, err
	}
	u, err := s.address(ctx, p)
	if err != nil {
		return nil, err
	}
	part := ranged.Span{Off: off, N: n}
	resp, err := s.loggedIn(ctx, p.endpoint, func(token string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		part.Ask(req)
		authorize(req, token)
		return httpx.Answer(s.http, req)
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, backends.ErrUnavailable) {
		return nil, s.notFound(ctx, p, f, err)
	}
	if err != nil {
		return nil, err
	}
	if err := s.checkVersion(ctx, p, f, resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return part.Body(resp, f.Size)
}

// notFound returns what it means that the HTTPS server does not find a file: of a server of
// which one machine is ill, that is its answer for what it has as well. Which machine answers is
// settled with the connection.
func (s store) notFound(ctx context.Context, p place, f files.File, err error) error {
	s.http.CloseIdleConnections()
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now, statErr := s.statAt(ctx, p, f.Path)
	switch {
	case statErr != nil:
		return statErr
	case now.Version != f.Version:
		return backends.ErrChanged
	}
	return fmt.Errorf("%w: the HTTPS server does not find a file that the Transfer API does", backends.ErrUnavailable)
}

// checkVersion compares the version of a file that is being sent.
//
// Errors: backends.ErrChanged.
func (s store) checkVersion(ctx context.Context, p place, f files.File, resp *http.Response) error {
	if err := ranged.Unfit(resp); err != nil {
		return err
	}
	size, err := ranged.Size(resp)
	if err != nil {
		return err
	}
	if size < 0 {
		size = f.Size
	}
	if modified, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil && version(modified, size) == f.Version {
		return nil
	}
	now, err := s.statAt(ctx, p, f.Path)
	if err == nil && now.Version != f.Version {
		err = backends.ErrChanged
	}
	return err
}

// authorize puts a token on a request to a collection's HTTPS server.
func authorize(req *http.Request, token string) {
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
}
