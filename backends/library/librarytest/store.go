// SPDX-License-Identifier: Apache-2.0

package librarytest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/s3/s3test"
)

const (
	accessKey = "librarytest"
	secretKey = "secret of librarytest"
	region    = "us-east-1"
	bucket    = "library"
)

// A Store is a real S3 server, versitygw, behind a proxy that logs the requests. It
// looks at each signature.
type Store struct {
	URL string

	client  *http.Client
	servers atomic.Int64 // that use it, each below a name of its own

	mu    sync.Mutex // guards the fields below
	seen  []*http.Request
	fault func(w http.ResponseWriter, r *http.Request) bool
}

// StartStore starts a store that ends with the test. Where versitygw is not
// installed the test is skipped, or fails if SREGFS_NOSKIP=1.
func StartStore(tb testing.TB) *Store {
	tb.Helper()
	transport := s3test.Gateway(tb, accessKey, secretKey, region, bucket)
	s := &Store{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, transport) }))
	tb.Cleanup(proxy.Close)
	own := &http.Transport{}
	tb.Cleanup(own.CloseIdleConnections)
	s.URL, s.client = proxy.URL, &http.Client{Transport: own}
	return s
}

// serve passes a request on, with the Host that is part of its signature.
func (s *Store) serve(w http.ResponseWriter, r *http.Request, transport http.RoundTripper) {
	s.mu.Lock()
	s.seen = append(s.seen, r)
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "s3"})
			p.Out.Host = p.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}).ServeHTTP(w, r)
}

// Fail gives every request to f first, which may answer it and say so by true; nil
// ends that.
func (s *Store) Fail(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Requests returns what was asked.
func (s *Store) Requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// presign makes an address that is good for one method, by Signature Version 4 as
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html has
// it. A sum, if not "", is signed: the request must then carry it.
func (s *Store) presign(method, key string, query url.Values, sum string, life time.Duration) string {
	now := time.Now().UTC()
	host := strings.TrimPrefix(s.URL, "http://")
	scope := now.Format("20060102") + "/" + region + "/s3/aws4_request"
	headers, signed := "host:"+host+"\n", "host"
	if sum != "" {
		headers, signed = headers+"x-amz-content-sha256:"+sum+"\n", signed+";x-amz-content-sha256"
	}
	q := url.Values{
		"X-Amz-Algorithm": {"AWS4-HMAC-SHA256"}, "X-Amz-Credential": {accessKey + "/" + scope}, "X-Amz-Date": {now.Format("20060102T150405Z")},
		"X-Amz-Expires": {fmt.Sprint(int(life.Seconds()))}, "X-Amz-SignedHeaders": {signed},
	}
	for name, values := range query {
		q[name] = values
	}
	path, encoded := "/"+bucket+"/"+key, strings.ReplaceAll(q.Encode(), "+", "%20")
	request := strings.Join([]string{method, path, encoded, headers, signed, "UNSIGNED-PAYLOAD"}, "\n")
	hash := sha256.Sum256([]byte(request))
	text := strings.Join([]string{"AWS4-HMAC-SHA256", q.Get("X-Amz-Date"), scope, hex.EncodeToString(hash[:])}, "\n")
	sign := []byte("AWS4" + secretKey)
	for _, part := range append(strings.Split(scope, "/"), text) {
		mac := hmac.New(sha256.New, sign)
		mac.Write([]byte(part))
		sign = mac.Sum(nil)
	}
	return s.URL + path + "?" + encoded + "&X-Amz-Signature=" + hex.EncodeToString(sign)
}

// do sends a request of the library itself.
func (s *Store) do(tb testing.TB, method, key string, query url.Values, body []byte) (int, []byte) {
	tb.Helper()
	var text bytes.Buffer
	status := s.stream(tb, method, key, query, section(body), &text)
	return status, text.Bytes()
}

// stream is do for what may be large.
func (s *Store) stream(tb testing.TB, method, key string, query url.Values, body *io.SectionReader, to io.Writer) int {
	tb.Helper()
	req, err := http.NewRequest(method, s.presign(method, key, query, "", time.Minute), nil)
	if err != nil {
		tb.Fatal(err)
	}
	if body.Size() > 0 {
		req.Body, req.ContentLength = io.NopCloser(body), body.Size()
	}
	resp, err := s.client.Do(req)
	if err != nil {
		tb.Error(err)
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(to, resp.Body); err != nil {
		tb.Error(err)
	}
	return resp.StatusCode
}

func section(text []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(text), 0, int64(len(text)))
}

func (s *Store) put(tb testing.TB, key string, content *io.SectionReader) {
	tb.Helper()
	var text bytes.Buffer
	if status := s.stream(tb, http.MethodPut, key, nil, content, &text); status != http.StatusOK {
		tb.Errorf("object for the store: %d %s", status, text.Bytes())
	}
}

// look returns what an object begins with, its size, and its digest.
func (s *Store) look(tb testing.TB, key string) (head []byte, size int64, hash string, ok bool) {
	tb.Helper()
	sum, begin := sha256.New(), &beginning{}
	status := s.stream(tb, http.MethodGet, key, nil, section(nil), io.MultiWriter(sum, begin))
	return begin.head, begin.size, "sha256." + hex.EncodeToString(sum.Sum(nil)), status == http.StatusOK
}

// A beginning keeps the first bytes of what is written.
type beginning struct {
	head []byte
	size int64
}

func (b *beginning) Write(p []byte) (int, error) {
	b.head = append(b.head, p[:min(len(p), headSize-len(b.head))]...)
	b.size += int64(len(p))
	return len(p), nil
}

// open begins an upload in parts.
func (s *Store) open(tb testing.TB, key string) string {
	tb.Helper()
	var opened struct {
		UploadID string `xml:"UploadId"`
	}
	status, text := s.do(tb, http.MethodPost, key, url.Values{"uploads": {""}}, nil)
	if err := xml.Unmarshal(text, &opened); err != nil || opened.UploadID == "" {
		tb.Errorf("upload in parts: %d %s", status, text)
	}
	return opened.UploadID
}

// A completedPart is one that the client says it has stored.
type completedPart struct {
	PartNumber int
	Token      string
}

// complete ends an upload in parts.
func (s *Store) complete(tb testing.TB, key, id string, parts []completedPart) bool {
	tb.Helper()
	var b strings.Builder
	b.WriteString("<CompleteMultipartUpload>")
	for _, part := range parts {
		fmt.Fprintf(&b, "<Part><PartNumber>%d</PartNumber><ETag>", part.PartNumber)
		if err := xml.EscapeText(&b, []byte(part.Token)); err != nil {
			tb.Error(err)
		}
		b.WriteString("</ETag></Part>")
	}
	b.WriteString("</CompleteMultipartUpload>")
	status, text := s.do(tb, http.MethodPost, key, url.Values{"uploadId": {id}}, []byte(b.String()))
	if status != http.StatusOK {
		tb.Logf("complete upload: %d %s", status, text)
	}
	return status == http.StatusOK
}
