// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// archiveOf is the file of img as package archive makes it of blobs at hand.
func archiveOf(t *testing.T, img ocitest.Image) []byte {
	t.Helper()
	a, err := archive.New(img.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Open(0, -1, func(digest string, _, off, n int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(img.Blobs[digest][off : off+n])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return whole
}

func smallImage(t *testing.T, docker bool) ocitest.Image {
	t.Helper()
	return ocitest.MakeImage(t, docker, map[string]any{"Cmd": []string{"sh"}},
		map[string]string{"etc/one": strings.Repeat("1", 300_000)}, map[string]string{"etc/two": "2"})
}

func TestArchive(t *testing.T) {
	t.Parallel()
	for _, docker := range []bool{false, true} {
		reg := ocitest.Start(t, ocitest.Options{})
		img := smallImage(t, docker)
		digest := reg.PushImage("a/image", "1", img)
		want := archiveOf(t, img)
		b := open(t, config{"url": reg.URL, "show": "oci.tar"})
		got := mustStat(t, b, "a/image:1")
		if got.Format != "oci.tar" || got.Size != int64(len(want)) || got.Version != digest || reg.Count("GET", "/blobs/") != 0 {
			t.Errorf("%+v, with %d blobs read; want %d bytes of %s", got, reg.Count("GET", "/blobs/"), len(want), digest)
		}
		if want := "docker://" + reg.Host + "/a/image:1"; got.URL != want {
			t.Errorf("URL %s, want %s", got.URL, want)
		}
		if !bytes.Equal(read(t, b, got, 0, -1), want) {
			t.Error("other bytes")
		}
		random := rand.New(rand.NewPCG(1, 2))
		for range 40 {
			off, n := random.Int64N(got.Size), 1+random.Int64N(5000)
			if part := read(t, b, got, off, n); !bytes.Equal(part, want[off:min(off+n, got.Size)]) {
				t.Fatalf("other bytes at %d", off)
			}
		}
		// By another process, and another name.
		got.Ref.Tag = "none"
		if !bytes.Equal(read(t, open(t, config{"url": reg.URL, "show": "oci.tar"}), got, 5, 10), want[5:15]) {
			t.Error("other bytes by version")
		}
	}
}

func TestArchive_architectures(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	var entries []any
	for _, arch := range []string{"amd64", "arm64"} {
		img := ocitest.MakeImage(t, true, map[string]any{"Cmd": []string{arch}}, map[string]string{"arch": arch})
		digest := reg.PushImage("a/multi", "only-"+arch, img)
		entries = append(entries, map[string]any{"mediaType": img.MediaType, "digest": digest, "size": len(img.Manifest),
			"platform": map[string]string{"architecture": arch, "os": "linux"}})
	}
	reg.PutManifest("a/multi", "1", ocitest.OCIIndex, map[string]any{"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": entries})
	b := open(t, config{"url": reg.URL, "show": "oci.tar"})
	for name, same := range map[string]string{"a/multi:1": "a/multi:only-amd64", "a/multi:1@arm64": "a/multi:only-arm64"} {
		if got, want := mustStat(t, b, name), mustStat(t, b, same); got.Version != want.Version || got.Digest != want.Digest || got.Format != "oci.tar" {
			t.Errorf("%s is %+v, want the version of %+v", name, got, want)
		}
	}
}

// A list of tags does not say what they are: what is known of one is likely of
// the others.
func TestArchive_listed(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushImage("a/image", "1", smallImage(t, false))
	reg.PushImage("a/image", "2", smallImage(t, true))
	reg.PushSIF("a/image", "sif", []byte("x"), nil)
	reg.PushSIF("a/other", "1", []byte("x"), nil)
	b := open(t, config{"url": reg.URL, "show": "oci.tar"})
	formats := func() map[string]string {
		got := map[string]string{}
		for e, err := range b.List(t.Context(), "a") {
			if err != nil {
				t.Fatal(err)
			}
			got[e.Image.Ref.String()] = e.Image.Format
		}
		return got
	}
	steps := []struct {
		stat string
		want map[string]string
	}{
		{"", map[string]string{"a/image:1": "sif", "a/image:2": "sif", "a/image:sif": "sif", "a/other:1": "sif"}}, // "sif" is looked at
		{"a/image:1", map[string]string{"a/image:1": "oci.tar", "a/image:2": "oci.tar", "a/image:sif": "sif", "a/other:1": "sif"}},
		{"a/image:sif", map[string]string{"a/image:1": "oci.tar", "a/image:2": "sif", "a/image:sif": "sif", "a/other:1": "sif"}},
		{"a/image:2", map[string]string{"a/image:1": "oci.tar", "a/image:2": "oci.tar", "a/image:sif": "sif", "a/other:1": "sif"}},
	}
	for _, s := range steps {
		if s.stat != "" {
			mustStat(t, b, s.stat)
		}
		if diff := cmp.Diff(s.want, formats()); diff != "" {
			t.Errorf("after a look at %q (-want +got):\n%s", s.stat, diff)
		}
	}
}

// Manifests are asked for once, also by another process: they count against
// quotas. The question what a tag is now does not.
func TestManifestsAreKept(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	img := smallImage(t, false)
	digest := reg.PushImage("a/image", "1", img)
	want := archiveOf(t, img)
	dir := t.TempDir()
	again := func() remote {
		return open(t, config{"url": reg.URL, "show": "oci.tar"}, func(env *backends.Env) { env.Cache = dir })
	}
	first := mustStat(t, again(), "a/image:1")
	if n := reg.Count("GET", "/manifests/"); n != 1 {
		t.Errorf("%d manifests fetched at first", n)
	}
	for _, name := range []string{"a/image:1", "a/image:1@" + digest} {
		reg.Forget()
		b := again()
		got := mustStat(t, b, name)
		if diff := cmp.Diff(first.Version, got.Version); diff != "" || got.Size != first.Size {
			t.Errorf("%+v, first %+v", got, first)
		}
		if !bytes.Equal(read(t, b, got, 0, -1), want) {
			t.Error("other bytes")
		}
		if gets, heads := reg.Count("GET", "/manifests/"), reg.Count("HEAD", "/manifests/"); gets != 0 || heads != 1 {
			t.Errorf("%s: %d manifests fetched and %d asked for, want 0 and 1", name, gets, heads)
		}
	}
	// What is damaged there is fetched again.
	reg.Forget()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 { // for the tag, the manifest, and what kind it is
		t.Fatalf("%v, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(files[0], []byte("application/x\n{}, and so on"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mustStat(t, again(), "a/image:1"); got.Version != first.Version || reg.Count("GET", "/manifests/") != 1 {
		t.Errorf("%+v with %d manifests fetched", got, reg.Count("GET", "/manifests/"))
	}
	// What the registry has no more is not there.
	if err := again().Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/image:1", "a/image:1@" + digest} {
		_, err := again().Stat(t.Context(), ref(t, name))
		wantErr(t, name+" after its deletion", err, fs.ErrNotExist)
	}
}

// A moved tag changes nothing for who reads; where the blobs are gone too, it
// says so.
func TestArchive_moved(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	img := smallImage(t, false)
	reg.PushImage("a/image", "1", img)
	b := open(t, config{"url": reg.URL, "show": "oci.tar"})
	old := mustStat(t, b, "a/image:1")
	reg.PushSIF("a/image", "1", []byte("x"), nil)
	if got := read(t, b, old, 0, -1); !bytes.Equal(got, archiveOf(t, img)) {
		t.Error("other bytes after the tag moved")
	}
	if err := os.RemoveAll(filepath.Join(reg.Storage(), "docker/registry/v2/repositories/a/image/_layers")); err != nil {
		t.Fatal(err)
	}
	config := int64(1536 + (len(img.Manifest)+511)/512*512 + 512)
	_, err := b.Open(t.Context(), old, config, -1)
	wantErr(t, "a blob that is gone", err, backends.ErrChanged)
	old.Digest = archive.Algorithm + ":" + strings.Repeat("0", 64)
	_, err = b.Open(t.Context(), old, 0, -1)
	wantErr(t, "another digest", err, backends.ErrChanged)
}

// Whatever goes wrong at the second blob, no wrong byte comes without an error.
func TestArchive_faults(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	img := smallImage(t, false)
	reg.PushImage("a/image", "1", img)
	want := archiveOf(t, img)
	answer := func(status int, body string, header ...string) func(*http.Request) (*http.Response, error) {
		return func(req *http.Request) (*http.Response, error) {
			h := http.Header{}
			for i := 0; i+1 < len(header); i += 2 {
				h.Set(header[i], header[i+1])
			}
			return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: req}, nil
		}
	}
	for name, c := range map[string]struct {
		fault func(*http.Request) (*http.Response, error)
		want  error
	}{
		"401":   {answer(401, "{}"), backends.ErrUnauthorized},
		"403":   {answer(403, "{}"), fs.ErrPermission},
		"404":   {answer(404, "{}"), fs.ErrNotExist},
		"429":   {answer(429, "{}", "Retry-After", "7"), backends.ErrRateLimited},
		"500":   {answer(500, "oops"), backends.ErrUnavailable},
		"html":  {answer(200, "<html>", "Content-Type", "text/html"), backends.ErrBadAnswer},
		"other": {answer(206, "x", "Content-Range", "bytes 7-7/9"), backends.ErrBadAnswer},
		"short": {answer(200, "x"), backends.ErrBadAnswer},
		"reset": {func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
		}, backends.ErrUnavailable},
		"hang": {func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		}, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blobs := 0
			b := open(t, config{"url": reg.URL, "show": "oci.tar"}, func(env *backends.Env) {
				next := env.HTTP.Transport
				env.HTTP.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
					if strings.Contains(req.URL.Path, "/blobs/") {
						if blobs++; blobs > 1 {
							return c.fault(req)
						}
					}
					return next.RoundTrip(req)
				})
			})
			client := backends.NewClient("lab", b.Backend, backends.ClientOptions{MaxElapsed: time.Second})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			body, err := client.Open(ctx, mustStat(t, b, "a/image:1"), 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if !errors.Is(err, c.want) || !bytes.HasPrefix(want, got) {
				t.Errorf("%d bytes and %v, want %v", len(got), err, c.want)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// What other programs push is what we read.
func TestArchive_pushedBySkopeo(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "skopeo")
	reg := ocitest.Start(t, ocitest.Options{})
	img := ocitest.NewImage(t, true)
	file := filepath.Join(t.TempDir(), "in.tar")
	if err := os.WriteFile(file, archiveOf(t, img), 0o600); err != nil {
		t.Fatal(err)
	}
	skopeo := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "skopeo", args...).CombinedOutput(); err != nil {
			t.Fatalf("skopeo %q: %v\n%s", args, err, out)
		}
	}
	for i, format := range []string{"oci", "v2s2"} {
		name := fmt.Sprintf("a/image:%d", i)
		skopeo("copy", "--insecure-policy", "--dest-tls-verify=false", "--format", format, "oci-archive:"+file, "docker://"+reg.Host+"/"+name)
		b := open(t, config{"url": reg.URL, "show": "oci.tar"})
		got := mustStat(t, b, name)
		out := filepath.Join(t.TempDir(), "out.oci.tar")
		if err := os.WriteFile(out, read(t, b, got, 0, -1), 0o600); err != nil {
			t.Fatal(err)
		}
		skopeo("copy", "--insecure-policy", "--preserve-digests", "oci-archive:"+out, "dir:"+t.TempDir())
	}
}
