// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// Open implements files.Store. It reads the revision. Who may read a file but not its
// revisions gets what the file is now, if it was still that version when the answer had begun:
// that is one more request.
func (s *store) Open(ctx context.Context, f files.File, off, n int64) (io.ReadCloser, error) {
	_, id := handles(f.ID)
	part := ranged.Span{Off: off, N: n}
	refused := backends.ErrChanged
	if _, headed := s.headed.Get(id); !headed && !strings.HasPrefix(f.Version, noRevision) {
		body, err := s.media(ctx, part, f.Size, "files/"+url.PathEscape(id)+"/revisions/"+url.PathEscape(f.Version), url.Values{})
		if !lost(err) && !denied(err) {
			return body, err
		}
		refused = err
	}
	body, err := s.media(ctx, part, f.Size, "files/"+url.PathEscape(id), all())
	if err != nil {
		return nil, err
	}
	now, err := s.get(ctx, id)
	if err == nil && (now.version() != f.Version || now.Trashed) {
		err = backends.ErrChanged
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	if denied(refused) {
		s.headed.Put(id, true)
	}
	return body, nil
}

// denied reports whether err is how Drive refuses what this login may not have.
func denied(err error) bool {
	return errors.Is(err, fs.ErrPermission) && !errors.Is(err, backends.ErrUnauthorized) && google.Reason(err) != "cannotDownloadAbusiveFile" &&
		google.Reason(err) != "downloadQuotaExceeded"
}

func (c *client) media(ctx context.Context, part ranged.Span, size int64, path string, query url.Values) (io.ReadCloser, error) {
	query.Set("alt", "media")
	req, err := httpx.NewRequest(ctx, http.MethodGet, c.address(path, query), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "*/*")
	part.Ask(req)
	resp, err := c.do(req, http.StatusRequestedRangeNotSatisfiable) //nolint:bodyclose // Body does it
	if err != nil {
		return nil, err
	}
	return part.Body(resp, size)
}
