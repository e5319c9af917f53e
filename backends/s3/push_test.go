// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/s3/s3test"
)

// open opens a bucket of the server.
func open(t *testing.T, srv *s3test.Server, bucket string, more ...map[string]any) *client {
	t.Helper()
	config := map[string]any{"url": srv.URL, "bucket": bucket}
	for _, m := range more {
		for key, value := range m {
			config[key] = value
		}
	}
	hc := backends.NewHTTPClient(backends.HTTPOptions{UserAgent: "s3_test"})
	t.Cleanup(hc.CloseIdleConnections)
	b, err := Open(t.Context(), backends.Env{Remote: "lab", HTTP: hc, Config: config, Secret: login, Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return b.(*client)
}

func random(n int) []byte {
	text := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(text)
	return text
}

func source(text []byte) backends.Source {
	return backends.Source{
		Content: bytes.NewReader(text), Size: int64(len(text)), Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(text)),
		Format: "sif", Modified: time.Date(2023, 5, 6, 7, 8, 9, 10, time.UTC),
	}
}

func parse(t *testing.T, spec string) backends.Ref {
	t.Helper()
	ref, err := backends.ParseRef(spec)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func readAll(t *testing.T, c *client, img backends.Image) []byte {
	t.Helper()
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A push that was killed goes on in another process, sends no part twice, and leaves nothing;
// uploads of others are not touched.
func TestPushGoesOn(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	foreign, err := minio.Core{Client: srv.Client}.NewMultipartUpload(t.Context(), bucket, "vsoch/other:1.sif", minio.PutObjectOptions{})
	if err != nil || foreign == "" {
		t.Fatal(err)
	}
	text, ref, kept := random(5*pieceSize+123), parse(t, "vsoch/hello:1"), &backendtest.Session{}
	src := source(text)
	src.Session = kept
	first := open(t, srv, bucket)
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	src.Progress = func(stored int64) {
		if stored >= 2*pieceSize {
			kill()
		}
	}
	if _, err := first.Push(ctx, ref, src); err == nil {
		t.Fatal("a push that was killed succeeded")
	}
	if keys, unfinished := srv.Keys(t, bucket); len(keys) != 0 || len(unfinished) != 2 {
		t.Errorf("after the kill: %q, and unfinished %q", keys, unfinished)
	}
	second := open(t, srv, bucket)
	src.Progress = nil
	srv.Requests()
	img, err := second.Push(t.Context(), ref, src)
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for _, r := range srv.Requests() {
		if strings.HasPrefix(r, "PUT ") && strings.Contains(r, "/vsoch/hello") {
			sent++
		}
	}
	if sent == 0 || sent > 4 {
		t.Errorf("%d of 6 parts were sent by the second push", sent)
	}
	if got := readAll(t, second, img); !bytes.Equal(got, text) || img.Digest != src.Digest {
		t.Errorf("%d bytes of digest %q", len(got), img.Digest)
	}
	if keys, unfinished := srv.Keys(t, bucket); !slices.Equal(keys, []string{"vsoch/hello:1.sif"}) || !slices.Equal(unfinished, []string{"vsoch/other:1.sif"}) {
		t.Errorf("afterwards: %q, and unfinished %q", keys, unfinished)
	}
	if kept.Load() != nil {
		t.Error("the session is not forgotten")
	}
}

// What is left is listed, and can be removed.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	core := minio.Core{Client: srv.Client}
	for _, key := range []string{"a b/ä:1.sif", "a b/c+d:1.sif", "other/x"} {
		if _, err := core.NewMultipartUpload(t.Context(), bucket, key, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	c := backends.NewClient("lab", open(t, srv, bucket, map[string]any{"prefix": "a b"}), backends.ClientOptions{})
	var paths []string
	for l, err := range c.Leftovers(t.Context()) {
		if err != nil || time.Since(l.Started) > time.Hour {
			t.Fatal(l, err)
		}
		paths = append(paths, l.Path)
		for range 2 {
			if err := c.Abandon(t.Context(), l); err != nil {
				t.Error(err)
			}
		}
	}
	if slices.Sort(paths); !slices.Equal(paths, []string{"a b/c+d:1.sif", "a b/ä:1.sif"}) {
		t.Errorf("left: %q", paths)
	}
	if _, unfinished := srv.Keys(t, bucket); !slices.Equal(unfinished, []string{"other/x"}) {
		t.Errorf("still left: %q", unfinished)
	}
}

// What this machine has begun long ago, and nobody ends, is removed by the next push.
func TestOldLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	c := open(t, srv, bucket)
	core := minio.Core{Client: srv.Client}
	for _, key := range []string{"a/old:1.sif", "a/young:1.sif"} {
		id, err := core.NewMultipartUpload(t.Context(), bucket, key, minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.bucket.ledger.note(c.bucket.where(), key, id)
		if key == "a/old:1.sif" {
			name := c.bucket.ledger.file(id)
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			year := fmt.Sprint(time.Now().Year())
			if err := os.WriteFile(name, bytes.Replace(text, []byte(`"time":"`+year), []byte(`"time":"2020`), 1), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := c.Push(t.Context(), parse(t, "b/c:1"), source(random(pieceSize+1))); err != nil {
		t.Fatal(err)
	}
	if _, unfinished := srv.Keys(t, bucket); !slices.Equal(unfinished, []string{"a/young:1.sif"}) {
		t.Errorf("unfinished: %q", unfinished)
	}
	if left, _ := filepath.Glob(filepath.Join(c.bucket.ledger.dir, ledgerDir, "*")); len(left) != 1 {
		t.Errorf("the ledger has %q", left)
	}
}

// Bytes that are not those of the digest, and a name that was taken meanwhile, leave no upload.
func TestFailedPushLeavesNothing(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	c := open(t, srv, bucket)
	ref := parse(t, "vsoch/hello:1")
	src := source(random(2 * pieceSize))
	src.Digest = source(nil).Digest
	if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("other bytes: %v, want ErrCorrupt", err)
	}
	src = source(random(2*pieceSize + 1))
	src.Commit = func() error { // somebody is faster
		srv.Put(t, bucket, "vsoch/hello:1.sif", []byte("theirs"), nil)
		return nil
	}
	if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, fs.ErrExist) {
		t.Errorf("where somebody was faster: %v, want fs.ErrExist", err)
	}
	old, err := c.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	src.Replaces = old.Version
	src.Commit = func() error {
		srv.Put(t, bucket, "vsoch/hello:1.sif", []byte("theirs again"), nil)
		return nil
	}
	if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("where somebody has replaced it: %v, want ErrChanged", err)
	}
	now, err := c.Stat(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, c, now); string(got) != "theirs again" {
		t.Errorf("it is %.40q", got)
	}
	if keys, unfinished := srv.Keys(t, bucket); len(keys) != 1 || len(unfinished) != 0 {
		t.Errorf("%q, and unfinished %q", keys, unfinished)
	}
}

// deaf makes the server one that knows no conditions.
func deaf(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		r.Header.Del("If-Match")
		r.Header.Del("If-None-Match")
		s3test.Sign(r)
	}
	return false
}

// A server that ignores conditions is found out before the first byte, once.
func TestConditionsIgnored(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	for _, size := range []int{1000, pieceSize + 1} {
		bucket := srv.Bucket(t, false)
		c := open(t, srv, bucket)
		srv.Fail(deaf)
		for range 2 {
			_, err := c.Push(t.Context(), parse(t, "vsoch/hello:1"), source(random(size)))
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "look_first") {
				t.Errorf("push to a server that ignores conditions: %v", err)
			}
			if seen := srv.Requests(); size < pieceSize && strings.Contains(strings.Join(seen, "\n"), "PUT /"+bucket+"/vsoch") {
				t.Errorf("it was sent: %q", seen)
			}
		}
		srv.Fail(nil)
		if keys, unfinished := srv.Keys(t, bucket); len(keys)+len(unfinished) != 0 {
			t.Errorf("left: %q, and unfinished %q", keys, unfinished)
		}
	}
	bucket := srv.Bucket(t, false)
	c := open(t, srv, bucket, map[string]any{"look_first": true})
	srv.Fail(deaf)
	for _, size := range []int{1000, pieceSize + 1} {
		ref := parse(t, fmt.Sprintf("vsoch/hello:%d", size))
		if _, err := c.Push(t.Context(), ref, source(random(size))); err != nil {
			t.Errorf("with look_first: %v", err)
		}
		src := source(random(size + 1))
		src.Commit = func() error { t.Error("the name is taken, and Commit was asked"); return nil }
		if _, err := c.Push(t.Context(), ref, src); !errors.Is(err, fs.ErrExist) {
			t.Errorf("with look_first, where something is: %v", err)
		}
	}
}

// The first push of a process tries the server, the others do not; no probe stays.
func TestProofCostsOnce(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	for _, versions := range []bool{false, true} {
		bucket := srv.Bucket(t, versions)
		c := open(t, srv, bucket)
		for i, want := range []int{9, 4} {
			srv.Requests()
			if _, err := c.Push(t.Context(), parse(t, fmt.Sprintf("vsoch/hello:%d", i)), source(random(1000+i))); err != nil {
				t.Fatal(err)
			}
			if seen := srv.Requests(); len(seen) != want {
				t.Errorf("push %d took %d requests, want %d:\n%s", i, len(seen), want, strings.Join(seen, "\n"))
			}
		}
		for i, want := range []int{5 + 2 + 9, 5 + 2} {
			srv.Requests()
			if _, err := c.Push(t.Context(), parse(t, fmt.Sprintf("vsoch/large:%d", i)), source(random(pieceSize+1+i))); err != nil {
				t.Fatal(err)
			}
			if seen := srv.Requests(); len(seen) != want {
				t.Errorf("large push %d took %d requests, want %d:\n%s", i, len(seen), want, strings.Join(seen, "\n"))
			}
		}
		for what, want := range map[string]int{"copy": 9, "move": 11} {
			if versions {
				want--
			}
			img, err := c.Stat(t.Context(), parse(t, "vsoch/hello:0"))
			if err != nil {
				t.Fatal(err)
			}
			srv.Requests()
			if what == "copy" {
				_, err = c.Copy(t.Context(), backends.CopySource{Backend: c, Image: img}, parse(t, "other/hello:copy"))
			} else {
				img, err = c.Stat(t.Context(), parse(t, "vsoch/hello:1"))
				srv.Requests()
				if err == nil {
					_, err = c.Move(t.Context(), img, parse(t, "other/hello:move"), "")
				}
			}
			if seen := srv.Requests(); err != nil || len(seen) != want {
				t.Errorf("a %s (%v) took %d requests, want %d:\n%s", what, err, len(seen), want, strings.Join(seen, "\n"))
			}
		}
		for o := range srv.Client.ListObjects(t.Context(), bucket, minio.ListObjectsOptions{Recursive: true, WithVersions: versions}) {
			if o.Err != nil || strings.Contains(o.Key, "probe") {
				t.Errorf("left: %q (%v)", o.Key, o.Err)
			}
		}
	}
}

// weighing sees how many bytes are under way at once.
type weighing struct {
	next       http.RoundTripper
	held, most atomic.Int64
}

func (w *weighing) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.ContentLength > 0 {
		n := w.held.Add(r.ContentLength)
		defer w.held.Add(-r.ContentLength)
		for old := w.most.Load(); n > old && !w.most.CompareAndSwap(old, n); old = w.most.Load() {
		}
	}
	return w.next.RoundTrip(r)
}

// All pushes together hold no more than they may.
func TestPushMemory(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	c := open(t, srv, srv.Bucket(t, false))
	const size = 96 << 20
	w := &weighing{next: c.bucket.http.Transport}
	c.bucket.http.Transport = w
	src := source(random(size))
	if _, err := c.Push(t.Context(), parse(t, "big/image:1"), src); err != nil {
		t.Fatal(err)
	}
	if most := w.most.Load(); most > inMemory || most < pieceSize {
		t.Errorf("%d bytes were under way at once", most)
	}
	if !c.bucket.memory.TryAcquire(inMemory) {
		t.Error("memory is held that nobody uses")
	}
}

// What a push stores is found by sregistry, rclone, and by its digest.
func TestMetadata(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	c := open(t, srv, bucket)
	for i, size := range []int{1000, pieceSize + 1<<20} {
		src := source(random(size))
		ref := parse(t, fmt.Sprintf("vsoch/hello:%d", i))
		img, err := c.Push(t.Context(), ref, src)
		if err != nil {
			t.Fatal(err)
		}
		copied, err := c.Copy(t.Context(), backends.CopySource{Backend: c, Image: img}, parse(t, fmt.Sprintf("other/hello:%d", i)))
		if err != nil || copied.Digest != src.Digest {
			t.Errorf("copy: %+v, %v", copied, err)
		}
		for _, collection := range []string{"vsoch", "other"} {
			o, err := srv.Client.StatObject(t.Context(), bucket, fmt.Sprintf("%s/hello:%d.sif", collection, i), minio.StatObjectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{
				"Client": "sregistry", "Type": "container", "Sizemb": fmt.Sprint(size >> 20), "Mtime": "1683356889.000000010",
				"Sha256": strings.TrimPrefix(src.Digest, "sha256:"),
			}
			for key, value := range want {
				if o.UserMetadata[key] != value {
					t.Errorf("%s: %s is %q, want %q", o.Key, key, o.UserMetadata[key], value)
				}
			}
		}
	}
}
