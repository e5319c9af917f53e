// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A remote is the backend with all that it can do.
type remote struct {
	backends.Backend
	backends.Lister
	backends.Pusher
	backends.Deleter
	backends.Mover
	backends.NameChecker
	backends.Layered
}

var testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type config = map[string]any

func open(t *testing.T, cfg config, change ...func(*backends.Env)) remote {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	env := backends.Env{Remote: "lab", Type: "oci", HTTP: hc, Config: cfg, Arch: "amd64", Home: t.TempDir()}
	for _, f := range change {
		f(&env)
	}
	b, err := oci.Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	return remote{b, b.(backends.Lister), b.(backends.Pusher), b.(backends.Deleter), b.(backends.Mover), b.(backends.NameChecker), b.(backends.Layered)}
}

func ref(t *testing.T, s string) backends.Ref {
	t.Helper()
	r, err := backends.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func source(content []byte) backends.Source {
	return backends.Source{Content: bytes.NewReader(content), Size: int64(len(content)), Digest: ocitest.Digest(content)}
}

func mustStat(t *testing.T, b backends.Backend, name string) backends.Image {
	t.Helper()
	img, err := b.Stat(t.Context(), ref(t, name))
	if err != nil {
		t.Fatalf("Stat(%s): %v", name, err)
	}
	return img
}

func read(t *testing.T, b backends.Backend, img backends.Image, off, n int64) []byte {
	t.Helper()
	body, err := b.Open(t.Context(), img, off, n)
	if err != nil {
		t.Fatalf("Open(%v, %d, %d): %v", img.Ref, off, n, err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read %v: %v", img.Ref, err)
	}
	return got
}

// names lists collection, collections with a slash at the end.
func names(t *testing.T, b backends.Lister, collection string) []string {
	t.Helper()
	var got []string
	for e, err := range b.List(t.Context(), collection) {
		if err != nil {
			t.Fatalf("List(%q): %v", collection, err)
		}
		if e.Collection != "" {
			got = append(got, e.Collection+"/")
		} else {
			got = append(got, e.Image.Ref.String())
		}
	}
	slices.Sort(got)
	return got
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func TestOpen_config(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg  config
		text string // part of the error; "" if there is none
	}{
		{config{"url": "https://ghcr.io"}, ""},
		{config{"url": "ghcr.io", "namespace": "me/images"}, ""},
		{config{"url": "http://127.0.0.1:5000/"}, ""},
		{config{"url": "https://Docker.io:443"}, ""},
		{config{}, "url"},
		{config{"url": "ftp://x"}, "url"},
		{config{"url": "https://ghcr.io/me"}, `namespace = "me"`},
		{config{"url": "https://me:pw@ghcr.io"}, "password"},
		{config{"url": "https://ghcr.io", "namespace": "Me"}, "lower-case"},
		{config{"uri": "https://ghcr.io"}, `did you mean "url"?`},
		{config{"url": "https://ghcr.io", "auth": "bearer", "layout": "library"}, ""},
		{config{"url": "https://ghcr.io", "auth": "baerer"}, `did you mean "bearer"?`},
		{config{"url": "https://ghcr.io", "layout": "librery"}, `did you mean "library"?`},
	} {
		_, err := oci.Open(t.Context(), backends.Env{Remote: "x", Type: "oci", HTTP: &http.Client{}, Config: tt.cfg})
		if tt.text == "" {
			if err != nil {
				t.Errorf("Open(%v): %v", tt.cfg, err)
			}
			continue
		}
		if !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "pw") {
			t.Errorf("Open(%v): error %v, want fs.ErrInvalid with %q", tt.cfg, err, tt.text)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	b := open(t, config{"url": "https://example.org", "namespace": "ns"})
	for name, ok := range map[string]bool{
		"a/b:1": true, "a__b/c-d.e:v1.0_x": true, "a/b/c/d:latest": true, "/b:1": true, "a/b:1@arm64": true,
		"a/b:1@sha256:" + strings.Repeat("a", 64): true,
		"A/b:1": false, "a/B:1": false, "a/b:-1": false, "a/b c:1": false, "a._b/c:1": false, "a/ü:1": false,
		"a/b:" + strings.Repeat("t", 129): false, strings.Repeat("a/", 130) + "b:1": false,
		"a/b:1@sha256:abc": false, "a/b:1@AMD 64": false, "a/x%2Fy:1": false,
	} {
		err := b.CheckName(ref(t, name))
		if ok != (err == nil) || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("CheckName(%s) = %v, want ok = %v", name, err, ok)
		}
	}
}

// ECR takes less than OCI allows.
func TestCheckName_ecr(t *testing.T) {
	t.Parallel()
	b := preset(t, "aws", config{"account": "123456789012", "region": "eu-central-1"}).(backends.NameChecker)
	for name, ok := range map[string]bool{
		"a/b:1": true, "/ab:1": true, "team-1/b.c_d:V1": true, "a/1:x": true,
		"a__b/c:1": false, "a--b/c:1": false, "1a/b:1": false, "/a:1": false, "A/b:1": false, strings.Repeat("a", 250) + "/bcdefg:1": false,
	} {
		err := b.CheckName(ref(t, name))
		if ok != (err == nil) || err != nil && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("CheckName(%s) = %v, want ok = %v", name, err, ok)
		}
	}
}

func TestStat(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	content := []byte("an image")
	digest := reg.PushSIF("vsoch/hello", "1", content, map[string]string{
		"org.opencontainers.image.created": "2026-01-02T03:04:05Z", "maker": "me",
	})
	b := open(t, config{"url": reg.URL})
	want := backends.Image{
		Ref:  backends.Ref{Collection: "vsoch", Name: "hello", Tag: "1"},
		Size: 8, Digest: ocitest.Digest(content), Version: digest, Format: "sif",
		Modified: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Labels: map[string]string{
			"maker": "me", "org.opencontainers.image.created": "2026-01-02T03:04:05Z", "org.opencontainers.image.title": "hello_1.sif",
		},
		URL: "oras://" + reg.Host + "/vsoch/hello:1",
	}
	for _, name := range []string{
		"vsoch/hello:1", "vsoch/hello:1@" + digest, "vsoch/hello:1@" + ocitest.Digest(content),
	} {
		if diff := cmp.Diff(want, mustStat(t, b, name)); diff != "" {
			t.Errorf("Stat(%s) (-want +got):\n%s", name, diff)
		}
	}
	t.Run("file digest without its tag", func(t *testing.T) {
		img := mustStat(t, b, "vsoch/hello:other@"+ocitest.Digest(content))
		if img.Digest != ocitest.Digest(content) || img.Size != 8 {
			t.Errorf("Stat = %+v, want the blob", img)
		}
		if got := read(t, b, img, 0, -1); !bytes.Equal(got, content) {
			t.Errorf("read %q, want %q", got, content)
		}
	})
	t.Run("known manifests are not fetched again", func(t *testing.T) {
		reg.Forget()
		mustStat(t, b, "vsoch/hello:1")
		if gets, heads := reg.Count("GET", "/manifests/"), reg.Count("HEAD", "/manifests/"); gets != 0 || heads != 1 {
			t.Errorf("%d GET and %d HEAD, want 0 and 1", gets, heads)
		}
	})
	t.Run("moved tag", func(t *testing.T) {
		moved := reg.PushSIF("vsoch/hello", "1", []byte("another"), nil)
		if img := mustStat(t, b, "vsoch/hello:1"); img.Version != moved || img.Size != 7 {
			t.Errorf("Stat after the tag moved = %+v, want version %s", img, moved)
		}
		if img := mustStat(t, b, "vsoch/hello:1@"+digest); img.Version != digest {
			t.Errorf("Stat of the old version = %+v", img)
		}
	})
	for name, want := range map[string]error{
		"vsoch/hello:2":       fs.ErrNotExist,
		"vsoch/nobody:1":      fs.ErrNotExist,
		"vsoch/hello:1@arm64": fs.ErrNotExist,
		"vsoch/hello:1@sha256:" + strings.Repeat("0", 64): fs.ErrNotExist,
		"vsoch/Hello:1": fs.ErrInvalid,
	} {
		_, err := b.Stat(t.Context(), ref(t, name))
		wantErr(t, name, err, want)
	}
}

func TestStat_index(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	amd := reg.PushSIF("a/multi", "amd", []byte("amd64 image"), nil)
	arm := reg.PushSIF("a/multi", "arm", []byte("arm64 image!"), nil)
	entry := func(digest, arch string, ref string) map[string]any {
		body, _ := reg.Manifest("a/multi", ref)
		return map[string]any{
			"mediaType": ocitest.OCIManifest, "digest": digest, "size": len(body),
			"platform": map[string]string{"os": "linux", "architecture": arch},
		}
	}
	reg.PutManifest("a/multi", "1", ocitest.OCIIndex, map[string]any{
		"schemaVersion": 2, "mediaType": ocitest.OCIIndex,
		"manifests": []any{entry(arm, "arm64", "arm"), entry(amd, "amd64", "amd")},
	})
	b := open(t, config{"url": reg.URL})
	for name, want := range map[string]string{"a/multi:1": amd, "a/multi:1@arm64": arm, "a/multi:1@amd64": amd} {
		if img := mustStat(t, b, name); img.Version != want {
			t.Errorf("Stat(%s).Version = %s, want %s", name, img.Version, want)
		}
	}
	// An image for no stated platform, and what was noted when it was built.
	bare, note := entry(amd, "", "amd"), entry(arm, "unknown", "arm")
	delete(bare, "platform")
	note["annotations"] = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": amd}
	reg.PutManifest("a/multi", "noted", ocitest.OCIIndex, map[string]any{
		"schemaVersion": 2, "mediaType": ocitest.OCIIndex, "manifests": []any{bare, note},
	})
	if img := mustStat(t, b, "a/multi:noted"); img.Version != amd {
		t.Errorf("version %s of an image with an attestation, want %s", img.Version, amd)
	}
	_, err := b.Stat(t.Context(), ref(t, "a/multi:1@riscv64"))
	wantErr(t, "missing architecture", err, fs.ErrNotExist)
	if err == nil || !strings.Contains(err.Error(), "arm64") {
		t.Errorf("error %v does not say what there is", err)
	}
	if got := string(read(t, b, mustStat(t, b, "a/multi:1@arm64"), 0, -1)); got != "arm64 image!" {
		t.Errorf("read %q", got)
	}
}

func TestStat_artifact(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("a/mixed", "sif", []byte("x"), nil)
	chart := reg.PutBlob("a/mixed", []byte("a chart"))
	reg.PutManifest("a/mixed", "chart", ocitest.OCIManifest, map[string]any{
		"schemaVersion": 2, "mediaType": ocitest.OCIManifest,
		"config": map[string]any{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": chart, "size": 7},
		"layers": []any{},
	})
	b := open(t, config{"url": reg.URL})
	if got, want := names(t, b, "a"), []string{"a/mixed:chart", "a/mixed:sif"}; !slices.Equal(got, want) {
		t.Errorf("List before any Stat = %q, want %q", got, want)
	}
	_, err := b.Stat(t.Context(), ref(t, "a/mixed:chart"))
	wantErr(t, "Stat of a chart", err, errors.ErrUnsupported)
	if err == nil || errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "helm") {
		t.Errorf("error %v, want one that says what it is", err)
	}
	if got, want := names(t, b, "a"), []string{"a/mixed:sif"}; !slices.Equal(got, want) {
		t.Errorf("List after the Stat = %q, want %q", got, want)
	}
}

func putDocker(t *testing.T, reg *ocitest.Registry, repo, tag string) string {
	t.Helper()
	config, layer := reg.PutBlob(repo, []byte(`{"architecture":"amd64"}`)), reg.PutBlob(repo, []byte("layer"))
	one := map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": 5}
	return reg.PutManifest(repo, tag, ocitest.OCIManifest, map[string]any{
		"schemaVersion": 2, "mediaType": ocitest.OCIManifest,
		"config": map[string]any{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 24},
		"layers": []any{one, one},
	})
}

func TestOpen_ranges(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := bytes.Repeat([]byte("0123456789"), 1000)
	reg.PushSIF("a/b", "1", content, nil)
	b := open(t, config{"url": reg.URL})
	img := mustStat(t, b, "a/b:1")
	for _, r := range [][2]int64{{0, -1}, {0, 10}, {1, 1}, {9990, 10}, {9990, 100}, {5000, -1}, {10000, 5}, {20000, -1}, {3, 0}} {
		want := content[min(r[0], 10000):]
		if r[1] >= 0 {
			want = want[:min(r[1], int64(len(want)))]
		}
		if got := read(t, b, img, r[0], r[1]); !bytes.Equal(got, want) {
			t.Errorf("read(%d, %d) gave %d bytes, want %d", r[0], r[1], len(got), len(want))
		}
	}
	if n := reg.BlobBytes(); n > 2*10000 {
		t.Errorf("%d bytes were sent for these ranges", n)
	}
}

func TestOpen_changed(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	reg.PushSIF("a/b", "1", []byte("old"), nil)
	b := open(t, config{"url": reg.URL})
	img := mustStat(t, b, "a/b:1")
	reg.PushSIF("a/b", "1", []byte("new"), nil)
	if got := string(read(t, b, img, 0, -1)); got != "old" {
		t.Errorf("read %q after the tag moved, want the bytes of the version", got)
	}
	img.Digest = ocitest.Digest([]byte("garbage collected"))
	_, err := b.Open(t.Context(), img, 0, -1)
	wantErr(t, "Open of a blob that is gone", err, backends.ErrChanged)
	img.Ref.Name = "nobody"
	_, err = b.Open(t.Context(), img, 0, -1)
	wantErr(t, "Open without a repository", err, fs.ErrNotExist)
}

func TestList(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{Delete: true})
	for _, name := range []string{"a/b:1", "a/b:2", "a/b/c:1", "a/d:1", "top:1", "z/y/x:1"} {
		repo, tag, _ := strings.Cut(name, ":")
		reg.PushSIF(repo, tag, []byte(name), nil)
	}
	reg.PushSIF("a/b", "sha256-"+strings.Repeat("0", 64), []byte("referrers"), nil)
	b := open(t, config{"url": reg.URL})
	for collection, want := range map[string][]string{
		"":    {"/top:1", "a/", "z/"},
		"a":   {"a/b/", "a/b:1", "a/b:2", "a/d:1"},
		"a/b": {"a/b/c:1"},
		"z":   {"z/y/"},
		"z/y": {"z/y/x:1"},
	} {
		if got := names(t, b, collection); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", collection, got, want)
		}
	}
	// One of each image, to know what kind it is; none again.
	names(t, b, "a")
	if n := reg.Count("", "/manifests/"); n != 5 {
		t.Errorf("listing asked for %d manifests, want 5", n)
	}
	if n := reg.Count("GET", "_catalog"); n != 1 {
		t.Errorf("listing asked for the catalogue %d times, want 1", n)
	}
	_, err := backends.Collect(b.List(t.Context(), "nobody"))
	wantErr(t, "List of nothing", err, fs.ErrNotExist)
	t.Run("namespace", func(t *testing.T) {
		b := open(t, config{"url": reg.URL, "namespace": "a"})
		if got, want := names(t, b, ""), []string{"/b:1", "/b:2", "/d:1", "b/"}; !slices.Equal(got, want) {
			t.Errorf("List = %q, want %q", got, want)
		}
		mustStat(t, b, "/b:1")
	})
	t.Run("stop early", func(t *testing.T) {
		for range b.List(t.Context(), "a") {
			break
		}
	})
	t.Run("tags null", func(t *testing.T) {
		if err := b.Delete(t.Context(), mustStat(t, b, "/top:1")); err != nil {
			t.Fatal(err)
		}
		if got, want := names(t, b, ""), []string{"a/", "z/"}; !slices.Equal(got, want) {
			t.Errorf("List = %q, want %q", got, want)
		}
	})
}

// The tags of many images come in order, and no more of them are asked for than
// somebody takes.
func TestList_stream(t *testing.T) {
	t.Parallel()
	const repos, pages = 40, 6
	reg := newFake(t)
	var asked atomic.Int64
	var catalog, want []string
	for i := range repos {
		repo := fmt.Sprintf("a/r%02d", i)
		catalog = append(catalog, repo)
		for page := range pages {
			want = append(want, fmt.Sprintf("%s:%d", repo, page))
		}
		reg.on("/v2/"+repo+"/tags/list", func(w http.ResponseWriter, req *http.Request) {
			asked.Add(1)
			page, _ := strconv.Atoi(req.URL.Query().Get("last"))
			if page+1 < pages {
				w.Header().Set("Link", fmt.Sprintf(`<?last=%d>; rel="next"`, page+1))
			}
			fmt.Fprintf(w, `{"tags":["%d"]}`, page)
		})
	}
	reg.on("/v2/_catalog", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{"repositories": catalog})
	})
	b := open(t, config{"url": reg.URL})
	if got := names(t, b, "a"); !slices.Equal(got, want) {
		t.Errorf("List = %q, want %q", got, want)
	}
	asked.Store(0)
	for _, err := range b.List(t.Context(), "a") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	// Of each of 16 images one page is on its way, and one waits to be sent.
	if n := asked.Load(); n > 16*3 {
		t.Errorf("%d pages were asked for, for one name", n)
	}
}

func TestList_cancel(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.Use(ocitest.Latency(time.Minute))
	b := open(t, config{"url": reg.URL})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := backends.Collect(b.List(ctx, ""))
	wantErr(t, "List", err, context.Canceled)
}
