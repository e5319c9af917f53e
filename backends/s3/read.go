// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// The metadata that a push writes. The first three are sregistry's, which finds images by them;
// mtime is rclone's; the digest is what is read is compared with.
const (
	metaSize   = "X-Amz-Meta-Sizemb"
	metaClient = "X-Amz-Meta-Client"
	metaType   = "X-Amz-Meta-Type"
	metaTime   = "X-Amz-Meta-Mtime"
	metaDigest = "X-Amz-Meta-Sha256"
)

const (
	pageSize = 1000 // keys, as many as S3 gives
	maxPages = 100_000
)

// The version of a file is its ETag without the quotes: all that a listing tells of versions.
// The id of a version, where the bucket keeps some, is the file's ID.

var (
	hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)
	aTag      = regexp.MustCompile(`^[!#-~]{1,256}$`)
)

// unquote returns the ETag of a header or a listing; "" if it is none that can be compared.
func unquote(tag string) string {
	tag = strings.TrimSuffix(strings.TrimPrefix(tag, `"`), `"`)
	if !aTag.MatchString(tag) {
		return ""
	}
	return tag
}

func quote(tag string) string { return `"` + tag + `"` }

// stat is Stat of a version, or of what the key means now.
func (b *bucket) stat(ctx context.Context, path string, query url.Values) (files.File, http.Header, error) {
	h, size, err := b.facts(ctx, b.key(path), query)
	if err != nil {
		return files.File{}, nil, err
	}
	f := files.File{Path: path, Size: size, Version: unquote(h.Get("ETag")), ID: h.Get("X-Amz-Version-Id")}
	if f.Version == "" || f.Size < 0 {
		return files.File{}, nil, fmt.Errorf("%w: an object without ETag and length", backends.ErrBadAnswer)
	}
	f.Modified, _ = http.ParseTime(h.Get("Last-Modified"))
	if sum := strings.ToLower(h.Get(metaDigest)); hexDigest.MatchString(sum) {
		f.Digest = "sha256:" + sum
	}
	return f, h, nil
}

// Stat implements files.Store.
func (b *bucket) Stat(ctx context.Context, path string) (files.File, error) {
	f, _, err := b.stat(ctx, path, nil)
	return f, err
}

// Open implements files.Store. What the key means is read on condition that it is the version;
// one that was replaced is read by its id, where the bucket has kept it.
func (b *bucket) Open(ctx context.Context, f files.File, off, n int64) (io.ReadCloser, error) {
	body, err := b.open(ctx, f, off, n)
	if !errors.Is(err, backends.ErrChanged) {
		return body, err
	}
	kept, keptErr := b.StatVersion(ctx, f.Path, f.Version)
	if keptErr != nil || kept.Version != f.Version {
		return nil, err
	}
	return b.open(ctx, kept, off, n)
}

func (b *bucket) open(ctx context.Context, f files.File, off, n int64) (io.ReadCloser, error) {
	part := ranged.Span{Off: off, N: n}
	r := request{
		method: http.MethodGet, key: b.key(f.Path), query: byID(f.ID), span: &part,
		header: http.Header{"If-Match": {quote(f.Version)}}, ok: []int{http.StatusRequestedRangeNotSatisfiable},
	}
	resp, err := b.do(ctx, r)
	if errors.Is(err, fs.ErrExist) { // 412
		return nil, backends.ErrChanged
	}
	if err != nil {
		return nil, err
	}
	if err := unfit(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	if tag := unquote(resp.Header.Get("ETag")); tag != f.Version && resp.StatusCode/100 == 2 {
		resp.Body.Close()
		if tag == "" {
			return nil, fmt.Errorf("%w: an object without ETag", backends.ErrBadAnswer)
		}
		return nil, backends.ErrChanged
	}
	return part.Body(resp, f.Size)
}

// byID asks for the version of an id; of a bucket that keeps none, "null" is all there is.
func byID(id string) url.Values {
	if id == "" || id == "null" {
		return nil
	}
	return url.Values{"versionId": {id}}
}

// A listing is one page of ListObjectsV2.
type listing struct {
	XMLName     xml.Name `xml:"ListBucketResult"`
	Encoding    string   `xml:"EncodingType"`
	IsTruncated bool
	Next        string `xml:"NextContinuationToken"`
	Contents    []object
	Prefixes    []struct{ Prefix string } `xml:"CommonPrefixes"`
}

// An object is what a listing tells of one. Numbers are text: a server may say anything.
type object struct {
	Key          string
	LastModified string
	ETag         string
	Size         string
	VersionID    string `xml:"VersionId"`
	IsLatest     bool
}

func (b *bucket) listing(ctx context.Context, prefix string, most int, token string) (listing, error) {
	q := url.Values{"list-type": {"2"}, "delimiter": {"/"}, "encoding-type": {"url"}, "max-keys": {strconv.Itoa(most)}}
	if prefix != "" {
		q.Set("prefix", prefix)
	}
	if token != "" {
		q.Set("continuation-token", token)
	}
	var page listing
	err := b.ask(ctx, request{method: http.MethodGet, query: q}, &page)
	return page, err
}

// root is what the keys in a folder begin with.
func (b *bucket) root(folder string) string {
	if folder == "" {
		return b.prefix
	}
	return b.key(folder) + "/"
}

// List implements files.Store.
func (b *bucket) List(ctx context.Context, folder, prefix string) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		root := b.root(folder)
		token, there := "", folder == "" || prefix != ""
		for n := range maxPages {
			page, err := b.listing(ctx, root+prefix, b.page, token)
			switch {
			case err != nil && n > 0:
				err = backends.BrokenOff(err)
			case errors.Is(err, fs.ErrNotExist) && folder == "":
				err = fmt.Errorf("%w: there is no bucket %s: %v", backends.ErrBadAnswer, b.name, err)
			}
			if err != nil {
				yield(files.File{}, err)
				return
			}
			for f, err := range b.files(page, folder, root) {
				if there = true; f.Path == "" && err == nil {
					continue // the folder itself, as some programs make one
				}
				if !yield(f, err) || err != nil {
					return
				}
			}
			if !page.IsTruncated {
				if !there {
					yield(files.File{}, backends.NotFound("no such collection"))
				}
				return
			}
			if page.Next == "" || page.Next == token {
				break
			}
			token = page.Next
		}
		yield(files.File{}, fmt.Errorf("%w: a listing without an end", backends.ErrBadAnswer))
	}
}

// files yields what a page tells of the folder root.
func (b *bucket) files(page listing, folder, root string) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		for _, o := range page.Contents {
			key, err := page.name(o.Key, root)
			if err != nil {
				yield(files.File{}, err)
				return
			}
			f := files.File{}
			if key != "" {
				f = o.file(files.Join(folder, key))
			}
			if !yield(f, nil) {
				return
			}
		}
		for _, p := range page.Prefixes {
			key, err := page.name(p.Prefix, root)
			if err != nil {
				yield(files.File{}, err)
				return
			}
			key = strings.TrimSuffix(key, "/")
			if key == "" || key == "." || key == ".." {
				continue // "a//b": a part without a name cannot be shown
			}
			if !yield(files.File{Path: files.Join(folder, key), Folder: true, Size: -1}, nil) {
				return
			}
		}
	}
}

// decode returns a key as it is, which a listing told in that encoding: "url", since XML has no
// room for some characters, or none.
func decode(encoding, key string) (string, error) {
	if encoding != "url" {
		return key, nil
	}
	plain, err := url.QueryUnescape(key)
	if err != nil {
		return "", fmt.Errorf("%w: key %.80q", backends.ErrBadAnswer, key)
	}
	return plain, nil
}

// name returns what a key of the page is called in the folder root.
func (l listing) name(key, root string) (string, error) {
	key, err := decode(l.Encoding, key)
	if err != nil {
		return "", err
	}
	name, ok := strings.CutPrefix(key, root)
	if !ok || strings.Contains(strings.TrimSuffix(name, "/"), "/") {
		return "", fmt.Errorf("%w: key %.80q in the listing of %.80q", backends.ErrBadAnswer, key, root)
	}
	return name, nil
}

func (o object) file(path string) files.File {
	f := files.File{Path: path, Size: -1, Version: unquote(o.ETag), ID: o.VersionID}
	if size, err := strconv.ParseInt(o.Size, 10, 64); err == nil && backends.CheckSize(size) == nil {
		f.Size = size
	}
	f.Modified, _ = time.Parse(time.RFC3339, o.LastModified)
	return f
}
