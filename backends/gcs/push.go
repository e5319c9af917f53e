// SPDX-License-Identifier: Apache-2.0

package gcs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/url"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

const (
	// smallSize is store.small: below it a session costs more than it saves.
	smallSize = 4 << 20
	// chunkSize is store.chunk. Nothing of it is in memory: it is read while it is sent.
	chunkSize = 64 << 20
	// maxSize is the largest object that there is, in bytes.
	// https://cloud.google.com/storage/quotas#objects
	maxSize = 5 << 40

	mediaType = "application/octet-stream"
)

// Put implements files.Writer. Google compares the generation before it makes an object, and
// the bytes with the CRC32C that the request begins with.
func (s *store) Put(ctx context.Context, path string, src backends.Source, old string) (files.File, error) {
	if src.Size > maxSize {
		return files.File{}, fmt.Errorf("%w: %d bytes (Google Storage takes at most %d)", fs.ErrInvalid, src.Size, int64(maxSize))
	}
	p := &push{store: s, path: path, src: src, old: old}
	if err := p.read(ctx); err != nil {
		return files.File{}, err
	}
	put := p.putLarge
	if src.Size <= s.small {
		put = p.putSmall
	}
	f, err := put(ctx)
	if err != nil {
		return files.File{}, err
	}
	if f.Size != src.Size || f.ID != "" && f.ID != p.crc {
		err := fmt.Errorf("%w: Google stored %d bytes with the CRC32C %s of %d with %s", backends.ErrCorrupt, f.Size, f.ID, src.Size, p.crc)
		return files.File{}, errors.Join(err, s.Remove(ctx, f))
	}
	return f, nil
}

// A push is one call of Put.
type push struct {
	*store
	path string
	src  backends.Source
	old  string
	crc  string // of all bytes, as Google writes it
}

// read reads all bytes, before the first is sent: what they are is then known to Google
// before anybody can see them.
//
// Errors: backends.ErrCorrupt if they are not those that were promised.
func (p *push) read(ctx context.Context) error {
	sha, crc := sha256.New(), crc32.New(castagnoli)
	n, err := io.Copy(io.MultiWriter(sha, crc), stopping{ctx, io.NewSectionReader(p.src.Content, 0, p.src.Size)})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("read what is to be pushed: %w", err)
	case n < p.src.Size:
		return fmt.Errorf("%w: %d bytes to be pushed, not %d", backends.ErrCorrupt, n, p.src.Size)
	}
	if sum := fmt.Sprintf("sha256:%x", sha.Sum(nil)); sum != p.src.Digest {
		return fmt.Errorf("%w: the bytes to be pushed are %s, not %s", backends.ErrCorrupt, sum, p.src.Digest)
	}
	p.crc = crcText(crc.Sum32())
	return nil
}

// A stopping reader ends with its context.
type stopping struct {
	ctx context.Context //nolint:containedctx // of the one call that it is made for
	io.Reader
}

// Read implements io.Reader.
func (s stopping) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.Reader.Read(p)
}

// upload returns the address that an upload of a kind begins at, and what it begins with.
func (p *push) upload(kind string) (address string, about []byte, err error) {
	q := url.Values{"uploadType": {kind}, "fields": {objectFields}}
	condition(q, p.old)
	about, err = json.Marshal(object{Name: p.prefix + p.path, ContentType: mediaType, CRC32C: p.crc, Metadata: p.metadata(p.path, p.src)})
	return p.base + "/upload/storage/v1/b/" + escape(p.bucket) + "/o?" + q.Encode(), about, err
}

// condition says which version may be replaced, as in files.Writer.
func condition(q url.Values, old string) {
	switch old {
	case backends.ReplaceAny:
	case "":
		q.Set("ifGenerationMatch", "0") // there is none
	default:
		q.Set("ifGenerationMatch", old)
	}
}

// conflict is err, where it may be that the condition does not hold.
func conflict(err error, old string) error {
	switch {
	case google.Status(err) != http.StatusPreconditionFailed:
		return err
	case old == "":
		return backends.Saying(fs.ErrExist, "the tag was taken meanwhile")
	}
	return backends.ErrChanged
}

// putSmall sends all in one request.
// https://cloud.google.com/storage/docs/uploading-objects#rest-upload-objects
func (p *push) putSmall(ctx context.Context) (files.File, error) {
	address, about, err := p.upload("multipart")
	if err != nil {
		return files.File{}, err
	}
	boundary := multipart.NewWriter(nil).Boundary()
	head := fmt.Appendf(nil, "--%s\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n%s\r\n--%s\r\nContent-Type: %s\r\n\r\n", boundary, about, boundary, mediaType)
	tail := fmt.Appendf(nil, "\r\n--%s--\r\n", boundary)
	req, err := request(ctx, http.MethodPost, address, int64(len(head)+len(tail))+p.src.Size, func() io.Reader {
		return io.MultiReader(bytes.NewReader(head), io.NewSectionReader(p.src.Content, 0, p.src.Size), bytes.NewReader(tail))
	})
	if err != nil {
		return files.File{}, err
	}
	req.Header.Set("Content-Type", "multipart/related; boundary="+boundary)
	if err := p.src.MayCommit(); err != nil {
		return files.File{}, err
	}
	resp, err := p.login.Do(req)
	if err != nil {
		return files.File{}, conflict(err, p.old)
	}
	return p.made(resp)
}

// made reads the answer that tells the object, which is there now.
func (p *push) made(resp *http.Response) (files.File, error) {
	defer resp.Body.Close()
	var o object
	if err := httpx.JSON(resp.Body, &o); err != nil {
		return files.File{}, err
	}
	f, err := p.file(o)
	if err == nil && f.Path != p.path {
		err = fmt.Errorf("%w: %.80q was made in place of %q", backends.ErrBadAnswer, f.Path, p.path)
	}
	return f, err
}

// request makes a request with a body of n bytes that can be sent again.
func request(ctx context.Context, method, address string, n int64, body func() io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.Header.Set("Accept", "application/json")
	if n == 0 {
		req.Body = http.NoBody // so that there is a Content-Length
		return req, nil
	}
	req.ContentLength = n
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(body()), nil }
	req.Body, err = req.GetBody()
	return req, err
}
