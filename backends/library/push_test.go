// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/library"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// minPart is what S3 takes for all parts but the last.
const minPart = 5 << 20

// An upload in parts that is broken off goes on where it was, with what a session
// keeps, in another process.
func TestPush_resumed(t *testing.T) {
	t.Parallel()
	store := librarytest.StartStore(t)
	srv := librarytest.Start(t, librarytest.Options{Store: store, PartSize: minPart})
	content := sifOf("large", "02", 2*minPart+1000)
	src := backendtest.Source(content)
	kept := &backendtest.Session{}
	src.Session = kept
	first := newRemote(t, config{"url": srv.URL}, loggedIn())
	library.SetPartSize(first, minPart)
	var parts atomic.Int64
	store.Fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || r.URL.Query().Get("partNumber") == "" || parts.Add(1) != 2 {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	_, err := first.Push(t.Context(), backendtest.Ref(t, "lab/c/large:1"), src)
	backendtest.WantErr(t, "Push that breaks", err, backends.ErrUnavailable)
	_, err = first.Stat(t.Context(), backendtest.Ref(t, "lab/c/large:1"))
	backendtest.WantErr(t, "Stat of what is half there", err, fs.ErrNotExist)
	second := newRemote(t, config{"url": srv.URL}, loggedIn())
	library.SetPartSize(second, minPart)
	var last int64
	src.Progress = func(stored int64) { last = stored }
	img, err := second.Push(t.Context(), backendtest.Ref(t, "lab/c/large:1"), src)
	if err != nil {
		t.Fatal(err)
	}
	backendtest.WantRead(t, second, img, 0, -1, content)
	if n := parts.Load(); n != 4 {
		t.Errorf("%d parts were sent, want 3 and the one that broke", n)
	}
	if kept.Load() != nil || last != src.Size {
		t.Errorf("after the push the session has %q and %d bytes are told", kept.Load(), last)
	}
	for _, r := range store.Requests() {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s %s came with a login", r.Method, r.URL.Path)
		}
	}
}

// Whatever the library and its store can, the bytes arrive.
func TestPush_ways(t *testing.T) {
	t.Parallel()
	store := librarytest.StartStore(t)
	for name, tt := range map[string]struct {
		options librarytest.Options
		way     string
		want    string // a request that shows the way
		never   string
	}{
		"parts":             {librarytest.Options{Store: store, PartSize: minPart}, "auto", "PUT /v2/imagefile/ID/_multipart_complete", "PUT /v2/imagefile/ID/_complete"},
		"parts, no sums":    {librarytest.Options{Store: store, PartSize: minPart, NoSums: true}, "auto", "PUT /v2/imagefile/ID/_multipart_complete", "PUT /v2/imagefile/ID/_complete"},
		"no parts":          {librarytest.Options{Store: store, NoParts: true}, "auto", "PUT /v2/imagefile/ID/_complete", "PUT /v2/imagefile/ID/_multipart"},
		"single":            {librarytest.Options{Store: store}, "single", "PUT /v2/imagefile/ID/_complete", "POST /v2/imagefile/ID/_multipart"},
		"without arch tags": {librarytest.Options{Store: store, APIVersion: "2.0.0-alpha.1", PartSize: minPart}, "auto", "POST /v1/tags/ID", "POST /v2/tags/ID"},
		"version 1":         {librarytest.Options{APIVersion: "1.9.9"}, "auto", "POST /v1/imagefile/ID", "POST /v2/imagefile/ID"},
		"no version":        {librarytest.Options{APIVersion: "none"}, "auto", "POST /v1/imagefile/ID", "POST /v2/imagefile/ID"},
		"no store":          {librarytest.Options{}, "auto", "POST /v1/imagefile/ID", "PUT /v2/imagefile/ID"},
		"raw":               {librarytest.Options{Store: store}, "raw", "POST /v1/imagefile/ID", "POST /v2/imagefile/ID"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := librarytest.Start(t, tt.options)
			content := sifOf(name, "02", minPart+5000)
			b := newRemote(t, config{"url": srv.URL, "push_by": tt.way}, loggedIn())
			library.SetPartSize(b, minPart)
			for _, tag := range []string{"1", "2"} {
				img, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:"+tag), backendtest.Source(content))
				if err != nil {
					t.Fatal(err)
				}
				backendtest.WantRead(t, b, img, 0, -1, content)
			}
			counts := map[string]int{}
			for _, r := range srv.Requests() {
				parts := strings.Split(r.Path, "/")
				for i, part := range parts {
					if strings.HasPrefix(part, "5b9e91c6") {
						parts[i] = "ID"
					}
				}
				counts[r.Method+" "+strings.Join(parts, "/")]++
			}
			if counts[tt.want] == 0 || counts[tt.never] != 0 {
				t.Errorf("%s %d times, %s %d times: %v", tt.want, counts[tt.want], tt.never, counts[tt.never], counts)
			}
			for _, upload := range []string{"POST /v1/imagefile/ID", "POST /v2/imagefile/ID", "POST /v2/imagefile/ID/_multipart"} {
				if counts[upload] > 1 {
					t.Errorf("%s %d times for one file under two tags", upload, counts[upload])
				}
			}
		})
	}
}

// A sum is sent with what was signed for one, and with nothing else.
func TestPush_signedSums(t *testing.T) {
	t.Parallel()
	for _, noSums := range []bool{false, true} {
		store := librarytest.StartStore(t)
		srv := librarytest.Start(t, librarytest.Options{Store: store, PartSize: minPart, NoSums: noSums})
		b := newRemote(t, config{"url": srv.URL, "push_by": "multipart"}, loggedIn())
		if _, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:1"), backendtest.Source(sifOf("x", "02", 5000))); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, r := range store.Requests() {
			if r.Method != http.MethodPut {
				continue
			}
			seen++
			signed := strings.Contains(r.URL.Query().Get("X-Amz-SignedHeaders"), "x-amz-content-sha256")
			if sent := r.Header.Get("X-Amz-Content-Sha256") != ""; sent != signed || signed == noSums {
				t.Errorf("signed for a sum: %v, sent: %v, NoSums: %v", signed, sent, noSums)
			}
		}
		if seen != 1 {
			t.Errorf("%d parts, want 1", seen)
		}
	}
}

// What a push through the registry makes is what clients of Sylabs read: the fake
// refuses an image without an architecture.
func TestPush_registry(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "library", Password: "secret", TokenAuth: true})
	srv := librarytest.Start(t, librarytest.Options{Registry: reg, Tokens: true, Prefix: "lib"})
	content, err := os.ReadFile("../../catalog/inspect/testdata/greet-signed.sif")
	if err != nil {
		t.Fatal(err)
	}
	b := newRemote(t, config{"url": srv.URL}, loggedIn())
	srv.SpoilTokens(1)
	kept := &backendtest.Session{}
	src := backendtest.Source(content)
	src.Session = kept
	img, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/greet:1"), src)
	if err != nil {
		t.Fatal(err)
	}
	if img.Labels["signed"] != "true" || img.Labels["arch"] != "amd64" || img.Digest != src.Digest || kept.Load() != nil {
		t.Errorf("Push gave %+v and left %q", img, kept.Load())
	}
	backendtest.WantRead(t, b, img, 0, -1, content)
	// Under a second tag it is there at once; over another image only if that is what
	// it was.
	before := reg.Count(http.MethodPatch, "/blobs/uploads/")
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/greet:2"), backendtest.Source(content)); err != nil {
		t.Error(err)
	}
	if n := reg.Count(http.MethodPatch, "/blobs/uploads/") - before; n != 0 {
		t.Errorf("%d pieces for bytes that are there", n)
	}
	other := backendtest.Source(sifOf("other", "02", 900))
	_, err = b.Push(t.Context(), backendtest.Ref(t, "lab/c/greet:2"), other)
	backendtest.WantErr(t, "Push over it", err, fs.ErrExist)
	other.Replaces = img.Version
	now, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/greet:2"), other)
	if err != nil || now.Digest != other.Digest {
		t.Errorf("Push with Replaces: %v, %v", now, err)
	}
	backendtest.WantRead(t, b, backendtest.Stat(t, b, "lab/c/greet:1"), 0, -1, content)
	for _, r := range reg.Requests() {
		if strings.Contains(r.Header.Get("Authorization"), librarytest.Token) {
			t.Errorf("%s %s came with the library's token", r.Method, r.Path)
		}
	}
}

func TestPush_refused(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	b := newRemote(t, config{"url": srv.URL}, loggedIn())
	_, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:1"), backendtest.Source(sifOf("arm", "04", 900)))
	backendtest.WantErr(t, "Push of an image for another machine", err, fs.ErrInvalid)
	if err == nil || !strings.Contains(err.Error(), `arch = "arm64"`) {
		t.Errorf("%v does not say what to do", err)
	}
	arm := newRemote(t, config{"url": srv.URL}, loggedIn(), func(env *backends.Env) { env.Arch = "arm64" })
	if img, err := arm.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:1"), backendtest.Source(sifOf("arm", "04", 900))); err != nil || img.Labels["arch"] != "arm64" {
		t.Errorf("Push where it belongs: %v, %v", img, err)
	}
	// The other architecture keeps its image under the same tag.
	if _, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:1"), backendtest.Source(sifOf("intel", "02", 900))); err != nil {
		t.Error(err)
	}
	if got := backendtest.Stat(t, b, "lab/c/tool:1@arm64").Digest; got != backendtest.Source(sifOf("arm", "04", 900)).Digest {
		t.Errorf("arm64 is %s now", got)
	}
	_, err = newRemote(t, config{"url": srv.URL}).Push(t.Context(), backendtest.Ref(t, "lab/c/tool:2"), backendtest.Source([]byte("x")))
	backendtest.WantErr(t, "Push without a token", err, backends.ErrUnauthorized)
	_, err = newRemote(t, config{"url": srv.URL, "push_by": "oci"}, loggedIn()).Push(t.Context(), backendtest.Ref(t, "lab/c/tool:2"), backendtest.Source([]byte("x")))
	backendtest.WantErr(t, "Push by a registry that there is not", err, errors.ErrUnsupported)
	_, err = b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:3"), backendtest.Source(nil))
	backendtest.WantErr(t, "Push of nothing", err, fs.ErrInvalid)
}

// If the answer to the last request is lost, the next try finds its own image.
func TestPush_answerLost(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	lost := false
	b := newRemote(t, config{"url": srv.URL}, loggedIn(), func(env *backends.Env) {
		next := env.HTTP.Transport
		env.HTTP.Transport = transport(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if err == nil && strings.HasPrefix(req.URL.Path, "/v2/tags/") && !lost {
				lost = true
				resp.Body.Close()
				return nil, errors.New("connection reset")
			}
			return resp, err
		})
	})
	src := backendtest.Source(sifOf("x", "02", 900))
	_, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:1"), src)
	backendtest.WantErr(t, "Push whose answer is lost", err, backends.ErrUnavailable)
	img, err := b.Push(t.Context(), backendtest.Ref(t, "lab/c/tool:1"), src)
	if err != nil || img.Digest != src.Digest {
		t.Errorf("the second try: %v, %v", img, err)
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
