// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // what the protocol asks for where nothing is signed
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"slices"

	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"
	"github.com/minio/minio-go/v7/pkg/signer"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

// A request is one that can be sent again with another login.
type request struct {
	method string
	key    string // "" asks of the bucket
	query  url.Values
	header http.Header
	body   []byte
	span   *ranged.Span
	ok     []int // statuses that are answers besides 2xx
}

// address returns where a key is; of the bucket with "".
func (b *bucket) address(key string) *url.URL {
	u := *b.home
	switch {
	case b.virtual:
		u.Host = b.name + "." + u.Host
		u.Path += "/" + key
	case key == "":
		u.Path += "/" + b.name
	default:
		u.Path += "/" + b.name + "/" + key
	}
	u.RawPath = s3utils.EncodePath(u.Path) // exactly what is signed
	return &u
}

// do sends a request with the login, and once more if there is a newer one than was refused.
// The caller closes the body of the answer.
//
// Errors: those of refusal.
func (b *bucket) do(ctx context.Context, r request) (*http.Response, error) {
	login, err := b.keys.get(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := b.send(ctx, r, login)
	if err == nil {
		return resp, nil
	}
	if next, ok := b.keys.again(ctx, login, err); ok {
		return b.send(ctx, r, next)
	}
	return nil, err
}

func (b *bucket) send(ctx context.Context, r request, login credentials.Value) (*http.Response, error) {
	req, err := b.sign(ctx, r, login)
	if err != nil {
		return nil, err
	}
	resp, err := httpx.Answer(b.http, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 || slices.Contains(r.ok, resp.StatusCode) {
		return resp, nil
	}
	return nil, b.refusal(resp, login.AccessKeyID == "")
}

// sign makes what is sent. The sum of the body is part of the signature, so no body can be
// damaged on its way without the server noticing.
func (b *bucket) sign(ctx context.Context, r request, login credentials.Value) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, b.home.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", fs.ErrInvalid, err)
	}
	req.URL, req.Host = b.address(r.key), ""
	req.URL.RawQuery = r.query.Encode()
	for name, values := range r.header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	if r.span != nil {
		r.span.Ask(req)
	}
	if r.body != nil {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(r.body)), int64(len(r.body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.body)), nil }
		if len(r.body) == 0 {
			req.Body = http.NoBody
		}
	}
	if login.AccessKeyID == "" || b.old {
		if r.body != nil {
			sum := md5.Sum(r.body) //nolint:gosec // as above
			req.Header.Set("Content-Md5", base64.StdEncoding.EncodeToString(sum[:]))
		}
		if login.AccessKeyID == "" {
			return req, nil
		}
		if login.SessionToken != "" {
			req.Header.Set("X-Amz-Security-Token", login.SessionToken)
		}
		return signer.SignV2(*req, login.AccessKeyID, login.SecretAccessKey, b.virtual), nil
	}
	sum := sha256.Sum256(r.body)
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	return signer.SignV4(*req, login.AccessKeyID, login.SecretAccessKey, login.SessionToken, b.region), nil
}

// ask sends a request whose answer is XML, and decodes that into v, which says by its XMLName
// what it must be: some errors come with the status of success.
func (b *bucket) ask(ctx context.Context, r request, v any) error {
	resp, err := b.do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := httpx.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := ranged.Unfit(resp); err != nil {
		return err
	}
	var told struct {
		XMLName xml.Name `xml:"Error"`
	}
	if xml.Unmarshal(text, &told) == nil {
		resp.StatusCode, resp.Body = http.StatusInternalServerError, io.NopCloser(bytes.NewReader(text))
		return b.refusal(resp, false)
	}
	if err := xml.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%w: not the XML of an S3 server: %v", backends.ErrBadAnswer, err)
	}
	return nil
}

// facts asks for what is told of an object: for its first byte, since the refusal of a HEAD is
// a number without a reason. Only of an object that is empty, or archived, there is no byte.
func (b *bucket) facts(ctx context.Context, key string, query url.Values) (h http.Header, size int64, err error) {
	r := request{method: http.MethodGet, key: key, query: query, span: &ranged.Span{N: 1}, ok: []int{http.StatusRequestedRangeNotSatisfiable}}
	resp, err := b.do(ctx, r)
	if code(err) == "InvalidObjectState" || err == nil && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		if err == nil {
			resp.Body.Close()
		}
		resp, err = b.do(ctx, request{method: http.MethodHead, key: key, query: query})
	}
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if err := unfit(resp); err != nil {
		return nil, 0, err
	}
	size, err = ranged.Size(resp)
	return resp.Header, size, err
}

// unfit is ranged.Unfit for an object. Of those that came in chunks some servers keep that; a
// proxy that compresses makes the ETag a weak one, which unquote knows.
func unfit(resp *http.Response) error {
	if unquote(resp.Header.Get("ETag")) != "" {
		resp.Header.Del("Content-Encoding")
	}
	return ranged.Unfit(resp)
}
