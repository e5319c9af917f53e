// SPDX-License-Identifier: Apache-2.0

// Package s3test runs a real S3 server, versitygw, for tests, behind a proxy that counts the
// requests and can answer some itself. What it holds is put there by minio-go's own client, so
// that nothing of ours writes what ours reads. Start at [Start].
package s3test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/signer"
)

// The login of the one account, and where it is.
const (
	AccessKey = "s3test"
	SecretKey = "secret-of-s3test"
	Region    = "us-east-1"
)

// A Server is a running server.
type Server struct {
	URL    string
	Client *minio.Client // another one than the package's under test

	plain *http.Client

	mu    sync.Mutex // guards the fields below
	seen  []*http.Request
	fault func(w http.ResponseWriter, r *http.Request) bool
}

// Start starts a server that ends with the test. Where versitygw is not installed the test is
// skipped, or fails if SREGFS_NOSKIP=1.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{}
	proxy := httptest.NewServer(s.proxy(Gateway(tb, AccessKey, SecretKey, Region)))
	tb.Cleanup(proxy.Close)
	s.URL = proxy.URL
	own := &http.Transport{}
	tb.Cleanup(own.CloseIdleConnections)
	s.plain = &http.Client{Transport: own}
	var err error
	s.Client, err = minio.New(strings.TrimPrefix(s.URL, "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: Region, Transport: own,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// Gateway starts versitygw with buckets, which ends with the test, and returns what takes every
// request to it, whatever its host. Where versitygw is not installed the test is skipped, or
// fails if SREGFS_NOSKIP=1.
func Gateway(tb testing.TB, access, secret, region string, buckets ...string) *http.Transport {
	tb.Helper()
	if _, err := exec.LookPath("versitygw"); err != nil {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			tb.Fatal("versitygw is not installed and SREGFS_NOSKIP=1 allows no skip")
		}
		tb.Skip("versitygw is not installed")
	}
	dir, err := os.MkdirTemp("", "s3-") //nolint:usetesting // the path of a socket has a hundred bytes at most
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, sub := range []string{"data", "meta", "versions"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	for _, bucket := range buckets {
		if err := os.Mkdir(filepath.Join(dir, "data", bucket), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("versitygw", "--port", socket, "--access", access, "--secret", secret, "--region", region, "--quiet",
		"posix", "--versioning-dir", filepath.Join(dir, "versions"), "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "data"))
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // tells of the kill alone
	})
	await(tb, socket, &output)
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	tb.Cleanup(transport.CloseIdleConnections)
	return transport
}

// await waits until somebody listens.
func await(tb testing.TB, socket string, output *bytes.Buffer) {
	tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); ; <-tick.C {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("versitygw does not start: %v\n%s", err, output)
		}
	}
}

// proxy passes requests on, with the Host that is part of their signatures.
func (s *Server) proxy(transport http.RoundTripper) http.Handler {
	onward := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: "s3"})
			p.Out.Host = p.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r)
		fault := s.fault
		s.mu.Unlock()
		if fault == nil || !fault(w, r) {
			onward.ServeHTTP(w, r)
		}
	})
}

// Fail gives every request to f first, which may change it, or answer it and say so by true;
// nil ends that.
func (s *Server) Fail(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Requests returns what was asked since it was last called, "METHOD QUERY-OR-PATH".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, r := range s.seen {
		all = append(all, r.Method+" "+r.URL.RequestURI())
	}
	s.seen = nil
	return all
}

// Bucket makes a bucket, which keeps versions if that is wanted.
func (s *Server) Bucket(tb testing.TB, versions bool) string {
	tb.Helper()
	name := "bucket-" + strings.ToLower(rand.Text())
	if err := s.Client.MakeBucket(tb.Context(), name, minio.MakeBucketOptions{Region: Region}); err != nil {
		tb.Fatal(err)
	}
	if versions {
		if err := s.Client.EnableVersioning(tb.Context(), name); err != nil {
			tb.Fatal(err)
		}
	}
	return name
}

// Put stores an object.
func (s *Server) Put(tb testing.TB, bucket, key string, text []byte, meta map[string]string) {
	tb.Helper()
	_, err := s.Client.PutObject(tb.Context(), bucket, key, bytes.NewReader(text), int64(len(text)), minio.PutObjectOptions{UserMetadata: meta})
	if err != nil {
		tb.Fatalf("put %s: %v", key, err)
	}
}

// Keys returns the keys of all objects of a bucket, and what uploads in parts are not ended.
func (s *Server) Keys(tb testing.TB, bucket string) (keys, unfinished []string) {
	tb.Helper()
	for o := range s.Client.ListObjects(tb.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			tb.Fatal(o.Err)
		}
		keys = append(keys, o.Key)
	}
	for u := range s.Client.ListIncompleteUploads(tb.Context(), bucket, "", true) {
		if u.Err != nil {
			tb.Fatal(u.Err)
		}
		unfinished = append(unfinished, u.Key)
	}
	slices.Sort(keys)
	return keys, unfinished
}

// Begin begins an upload in parts that nobody ends.
func (s *Server) Begin(tb testing.TB, bucket, key string) {
	tb.Helper()
	if _, err := (minio.Core{Client: s.Client}).NewMultipartUpload(tb.Context(), bucket, key, minio.PutObjectOptions{}); err != nil {
		tb.Fatal(err)
	}
}

// Refuse makes the server answer everything with an error of the protocol.
func (s *Server) Refuse(status int, code, more string) {
	s.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>It is so.</Message>%s</Error>`, code, more)
		}
		return true
	})
}

// Sign signs a request anew that a fault has changed.
func Sign(r *http.Request) {
	r.Header.Del("Authorization")
	for name := range r.Header {
		if name != "Content-Type" && !strings.HasPrefix(name, "X-Amz-") && name != "Range" {
			defer func(values []string) { r.Header[name] = values }(r.Header[name])
			delete(r.Header, name)
		}
	}
	signed := signer.SignV4(*r, AccessKey, SecretKey, "", Region)
	r.Header, r.URL = signed.Header, signed.URL
}

// Fetch asks for an address as everybody can.
func (s *Server) Fetch(address string) (*http.Response, error) { return s.plain.Get(address) }
