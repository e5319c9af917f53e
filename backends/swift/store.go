// SPDX-License-Identifier: Apache-2.0

package swift

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// What is kept with an object: the SHA-256 of its bytes, and when the file was changed, as
// python-swiftclient and rclone have it.
const (
	sumHeader  = "X-Object-Meta-Sha256"
	timeHeader = "X-Object-Meta-Mtime"
)

const (
	folderType = "application/directory" // of an object that stands for an empty folder
	maxPage    = 64 << 20                // bytes of a page of a listing: 10,000 names of 1,024 bytes in JSON
	maxPages   = 10_000
)

// Stat implements files.Store.
func (s *store) Stat(ctx context.Context, path string) (files.File, error) {
	f, _, err := s.head(ctx, path, false)
	return f, err
}

// newest, as an argument of head, has all replicas of an object asked, and not the first that answers.
const newest = true

// head is Stat with all that is told.
func (s *store) head(ctx context.Context, path string, newest bool) (files.File, http.Header, error) {
	o := s.at(path)
	if o.name == "" || o.container == "" || strings.HasSuffix(path, "/") {
		return files.File{}, nil, backends.NotFound("no such object")
	}
	resp, err := s.do(ctx, http.MethodHead, o, nil, func(req *http.Request) error {
		if newest {
			req.Header.Set("X-Newest", "true")
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return files.File{}, nil, backends.NotFound("no such object")
	}
	if err != nil {
		return files.File{}, nil, err
	}
	resp.Body.Close()
	h := resp.Header
	if h.Get("Content-Type") == folderType {
		return files.File{}, nil, backends.NotFound("a folder")
	}
	f := files.File{Path: path, Size: resp.ContentLength, Version: version(h.Get("Etag")), Modified: timestamp(h)}
	if f.Version == "" || f.Size < 0 {
		return files.File{}, nil, fmt.Errorf("%w: an object without an ETag or a size (is this a Swift?)", backends.ErrBadAnswer)
	}
	f.Digest = digest(h)
	return f, h, nil
}

// version makes a version of an ETag. Those of large objects are in quotes, and in listings not
// everywhere.
func version(etag string) string { return strings.Trim(etag, `"`) }

// digest returns what is known of the bytes: what a push has noted, else the MD5 that the ETag of
// an object in one piece is.
func digest(h http.Header) string {
	if sum := "sha256:" + strings.ToLower(h.Get(sumHeader)); backends.CheckDigest(sum) == nil {
		return sum
	}
	etag := h.Get("Etag")
	if _, err := hex.DecodeString(etag); err == nil && len(etag) == 32 && h.Get("X-Static-Large-Object") == "" && h.Get(dynamicHeader) == "" {
		return "md5:" + strings.ToLower(etag)
	}
	return ""
}

// timestamp is when an object was stored: to the second, as not every listing tells more.
func timestamp(h http.Header) time.Time {
	if seconds, err := strconv.ParseFloat(h.Get("X-Timestamp"), 64); err == nil && seconds > 0 && seconds < 1<<40 {
		return time.Unix(int64(seconds), 0)
	}
	t, _ := http.ParseTime(h.Get("Last-Modified"))
	return t
}

// Open implements files.Store.
func (s *store) Open(ctx context.Context, f files.File, off, n int64) (io.ReadCloser, error) {
	part := ranged.Span{Off: off, N: n}
	resp, err := s.do(ctx, http.MethodGet, s.at(f.Path), nil, func(req *http.Request) error {
		part.Ask(req)
		req.Header.Set("If-Match", strconv.Quote(f.Version))
		return nil
	}, http.StatusRequestedRangeNotSatisfiable, http.StatusPreconditionFailed)
	if err != nil {
		return nil, err
	}
	// A range that is past the end is answered before the condition is looked at.
	if etag := resp.Header.Get("Etag"); resp.StatusCode == http.StatusPreconditionFailed || etag != "" && version(etag) != f.Version {
		resp.Body.Close()
		return nil, backends.ErrChanged
	}
	if resp.Header.Get(dynamicHeader) != "" {
		resp.Header.Del("Content-Type") // Swift calls these bytes HTML if there is a condition
	}
	return part.Body(resp, f.Size)
}

// A listed is an entry of a listing in JSON: an object, a common beginning of several, a container.
type listed struct {
	Name         string `json:"name"`
	Subdir       string `json:"subdir"`
	Bytes        int64  `json:"bytes"`
	Hash         string `json:"hash"`
	SLO          string `json:"slo_etag"` // the ETag of a large object, whose Hash is that of its manifest
	ContentType  string `json:"content_type"`
	LastModified string `json:"last_modified"`
}

// List implements files.Store.
func (s *store) List(ctx context.Context, folder, prefix string) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		o := s.at(folder)
		query := url.Values{}
		if o.container != "" {
			if o.name != "" {
				o.name += "/"
			}
			query.Set("delimiter", "/")
		}
		inside := o.name
		o.name = ""
		empty := true
		for e, err := range s.pages(ctx, o, inside+prefix, query) {
			if err != nil {
				yield(files.File{}, err)
				return
			}
			empty = false
			f, ok := s.file(folder, inside, e)
			if ok && !yield(f, nil) {
				return
			}
		}
		if empty && prefix == "" && inside != "" {
			yield(files.File{}, backends.NotFound("no such folder"))
		}
	}
}

// file makes a file of an entry of the listing of folder, whose names begin with inside.
func (s *store) file(folder, inside string, e listed) (files.File, bool) {
	name, isFolder := strings.CutSuffix(e.Subdir, "/")
	if !isFolder {
		name = e.Name
	}
	name, ok := strings.CutPrefix(name, inside)
	f := files.File{Path: files.Join(folder, name), Size: -1}
	if !ok || name == "" || strings.Contains(name, "/") {
		return f, false
	}
	if folder == "" && s.container == "" { // a container
		f.Folder = true
		return f, !hidden(name)
	}
	if f.Folder = isFolder || e.ContentType == folderType; f.Folder {
		return f, true
	}
	f.Modified, _ = time.Parse("2006-01-02T15:04:05", strings.TrimSuffix(e.LastModified, "Z"))
	f.Modified = f.Modified.Truncate(time.Second)
	// One that is made of segments in the older way has no bytes in a listing, and another ETag.
	if e.Bytes > 0 {
		f.Size, f.Version = e.Bytes, version(e.Hash)
		if e.SLO != "" {
			f.Version = version(e.SLO)
		}
	}
	return f, true
}

// pages yields a listing whose names begin with prefix. How many names a page has, only the
// service knows (capabilities): there are more unless a page has less than that. The count of
// objects that it tells is not believed: in a container that is sharded it comes later.
func (s *store) pages(ctx context.Context, o object, prefix string, query url.Values) iter.Seq2[listed, error] {
	return func(yield func(listed, error) bool) {
		query.Set("format", "json")
		if prefix != "" {
			query.Set("prefix", prefix)
		}
		marker := ""
		for range maxPages {
			page, err := s.page(ctx, o, query)
			if err != nil {
				if marker != "" {
					err = backends.BrokenOff(err)
				}
				yield(listed{}, err)
				return
			}
			for _, e := range page {
				name := e.Name + e.Subdir
				if name <= marker {
					yield(listed{}, fmt.Errorf("%w: a listing that goes backwards", backends.ErrBadAnswer))
					return
				}
				if marker = name; !yield(e, nil) {
					return
				}
			}
			if len(page) == 0 || len(page) < s.pageSize(ctx, o) {
				return
			}
			query.Set("marker", marker)
		}
		yield(listed{}, fmt.Errorf("%w: a listing of more than %d pages", backends.ErrBadAnswer, maxPages))
	}
}

// page returns one page.
func (s *store) page(ctx context.Context, o object, query url.Values) ([]listed, error) {
	resp, err := s.do(ctx, http.MethodGet, o, query, func(req *http.Request) error {
		req.Header.Set("Accept", "application/json")
		return nil
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNoContent {
		return nil, nil
	}
	if ranged.IsPage(resp.Header) {
		return nil, httpx.ErrPage
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
	switch {
	case err != nil:
		return nil, backends.TransportError(err)
	case len(text) > maxPage:
		return nil, fmt.Errorf("%w: a page of more than %d bytes", backends.ErrBadAnswer, maxPage)
	}
	var page []listed
	if err := httpx.Decode(text, &page); err != nil {
		return nil, err
	}
	return page, nil
}

// Limits are what a service says that it can, as far as it matters here.
type limits struct {
	Swift struct {
		MaxFile     int64 `json:"max_file_size"`
		ObjectPage  int   `json:"container_listing_limit"`
		AccountPage int   `json:"account_listing_limit"`
	} `json:"swift"`
	SLO *struct {
		MaxSegments int64 `json:"max_manifest_segments"`
	} `json:"slo"`
	TempURL struct {
		Digests []string `json:"allowed_digests"`
	} `json:"tempurl"`
}

// capabilities asks the service what it can, once.
func (s *store) capabilities(ctx context.Context) (*limits, error) {
	s.mu.Lock()
	known := s.limits
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	account, err := s.login.get(ctx)
	if err != nil {
		return nil, err
	}
	info := *account.storage
	info.Path, info.RawPath = "/info", ""
	if before, _, ok := strings.Cut(account.storage.Path, "/v1"); ok {
		info.Path = before + "/info" // a Ceph gateway has /swift before both
	}
	req, err := httpx.NewRequest(ctx, http.MethodGet, info.String(), nil)
	if err != nil {
		return nil, err
	}
	l := &limits{}
	resp, err := httpx.Do(s.http, req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), errors.Is(err, errors.ErrUnsupported),
		errors.Is(err, backends.ErrUnauthorized), errors.Is(err, backends.ErrBadAnswer):
		// It may be turned off.
	case err != nil:
		return nil, err
	default:
		defer resp.Body.Close()
		text, err := httpx.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		if json.Unmarshal(text, l) != nil {
			l = &limits{}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = l
	return l, nil
}

// pageSize returns how many names a page has that is not the last; 1 if the service does not say.
func (s *store) pageSize(ctx context.Context, o object) int {
	l, err := s.capabilities(ctx)
	if err != nil {
		return 1
	}
	if o.container == "" {
		return max(l.Swift.AccountPage, 1)
	}
	return max(l.Swift.ObjectPage, 1)
}
