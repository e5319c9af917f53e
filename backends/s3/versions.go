// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// A history is one page of ListObjectVersions.
type history struct {
	XMLName     xml.Name `xml:"ListVersionsResult"`
	Encoding    string   `xml:"EncodingType"`
	IsTruncated bool
	NextKey     string   `xml:"NextKeyMarker"`
	NextVersion string   `xml:"NextVersionIdMarker"`
	Versions    []object `xml:"Version"` // none of the markers of what was deleted
}

// versions yields the versions of the keys of a folder that begin with prefix.
//
// Errors: those of refusal: not every server knows them, nor may every login see them.
func (b *bucket) versions(ctx context.Context, prefix string) iter.Seq2[object, error] {
	return func(yield func(object, error) bool) {
		q := url.Values{"versions": {""}, "encoding-type": {"url"}, "delimiter": {"/"}, "max-keys": {strconv.Itoa(b.page)}, "prefix": {prefix}}
		for range maxPages {
			var page history
			if err := b.ask(ctx, request{method: http.MethodGet, query: q}, &page); err != nil {
				yield(object{}, err)
				return
			}
			for _, o := range page.Versions {
				var err error
				if o.Key, err = decode(page.Encoding, o.Key); !yield(o, err) || err != nil {
					return
				}
			}
			if !page.IsTruncated {
				return
			}
			next, err := decode(page.Encoding, page.NextKey)
			if err != nil || next == q.Get("key-marker") && page.NextVersion == q.Get("version-id-marker") {
				break
			}
			q.Set("key-marker", next)
			q.Set("version-id-marker", page.NextVersion)
			if page.NextVersion == "" {
				q.Del("version-id-marker")
			}
		}
		yield(object{}, fmt.Errorf("%w: a listing without an end", backends.ErrBadAnswer))
	}
}

// History implements files.Historian. Where versions cannot be listed there is what is there now.
func (b *bucket) History(ctx context.Context, folder, prefix string) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		root, n := b.root(folder), 0
		for o, err := range b.versions(ctx, root+prefix) {
			if n == 0 && (errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) || errors.Is(err, backends.ErrBadAnswer)) {
				b.List(ctx, folder, prefix)(yield)
				return
			}
			if err != nil && n > 0 {
				err = backends.BrokenOff(err)
			}
			n++
			name, ok := strings.CutPrefix(o.Key, root)
			if err == nil && (!ok || name == "" || strings.Contains(name, "/")) {
				continue
			}
			f := o.file(files.Join(folder, name))
			f.Older = !o.IsLatest
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// StatVersion implements files.VersionKeeper: a version is said by its ETag, as everywhere here,
// or by its id.
func (b *bucket) StatVersion(ctx context.Context, path, version string) (files.File, error) {
	if aTag.MatchString(version) {
		for o, err := range b.versions(ctx, b.key(path)) {
			if errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrUnauthorized) || errors.Is(err, backends.ErrRateLimited) || ctx.Err() != nil {
				return files.File{}, err
			}
			if err != nil || o.Key != b.key(path) {
				break
			}
			if o.VersionID == version || unquote(o.ETag) == version {
				f, _, err := b.stat(ctx, path, byID(o.VersionID))
				if err == nil && f.Version != unquote(o.ETag) {
					err = backends.ErrChanged
				}
				f.ID = o.VersionID
				return f, err
			}
		}
	}
	return files.File{}, fmt.Errorf("%w: no such version", fs.ErrNotExist)
}
