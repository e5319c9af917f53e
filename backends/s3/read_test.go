// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/s3/s3test"
)

// names returns what a listing tells, sorted.
func names(t *testing.T, c *client, collection string) (all []string) {
	t.Helper()
	for e, err := range c.List(t.Context(), collection) {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Collection != "":
			all = append(all, e.Collection+"/")
		default:
			all = append(all, e.Image.Ref.String())
		}
	}
	slices.Sort(all)
	return all
}

// 10,000 images are ten pages, and all that a listing of a directory needs.
func TestTenThousand(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range 10_000 {
		g.Go(func() error {
			srv.Put(t, bucket, fmt.Sprintf("many/image%d:%d.sif", i%100, i), []byte("x"), nil)
			return nil
		})
	}
	_ = g.Wait()
	c := open(t, srv, bucket)
	srv.Requests()
	n := 0
	for e, err := range c.List(t.Context(), "many") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; e.Image.Version == "" || e.Image.Size != 1 || e.Image.Modified.IsZero() {
			t.Fatalf("the listing tells %+v", e.Image)
		}
	}
	if seen := srv.Requests(); n != 10_000 || len(seen) != 10 {
		t.Errorf("%d images in %d requests", n, len(seen))
	}
}

// Buckets of sregistry, of people and of other programs, and all in one.
func TestLayouts(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	for _, key := range []string{
		"vsoch/hello:2.0.sif", "vsoch/hello:2.1@abc.sif", "vsoch/old-1.simg", "tools/samtools.sif", "top:1.sif", "plain.sif",
		"tools/README.md", "a/b/c/deep:1.sif", ".sregfs-probe-x", "vsoch/.sregfs-upload.sif", "we ird/a+b&c=d%:1.sif", "größe/ä:ö.sif",
	} {
		srv.Put(t, bucket, key, []byte(key), nil)
	}
	if _, err := srv.Client.PutObject(t.Context(), bucket, "empty/", bytes.NewReader(nil), 0, putOptions); err != nil {
		t.Fatal(err)
	}
	c := open(t, srv, bucket)
	for collection, want := range map[string][]string{
		"":       {"/plain:latest", "/top:1", "a/", "empty/", "größe/", "tools/", "vsoch/", "we ird/"},
		"vsoch":  {"vsoch/hello:2.0", "vsoch/hello:2.1", "vsoch/old-1:latest"},
		"tools":  {"tools/samtools:latest"},
		"a/b":    {"a/b/c/"},
		"empty":  nil,
		"we ird": {"we ird/a+b&c=d%25:1"},
		"größe":  {"größe/ä:ö"},
	} {
		if got := names(t, c, collection); !slices.Equal(got, want) {
			t.Errorf("%q has %q, want %q", collection, got, want)
		}
	}
	for _, ref := range []backends.Ref{
		parse(t, "vsoch/hello:2.0"), parse(t, "vsoch/hello:2.1@abc"), parse(t, "vsoch/old:1"), parse(t, "tools/samtools"),
		{Collection: "we ird", Name: "a+b&c=d%", Tag: "1"}, {Collection: "größe", Name: "ä", Tag: "ö"},
	} {
		img, err := c.Stat(t.Context(), ref)
		if err != nil {
			t.Errorf("Stat(%s): %v", ref, err)
			continue
		}
		if got := readAll(t, c, img); !strings.HasPrefix(string(got), ref.Collection) {
			t.Errorf("%s is %q", ref, got)
		}
	}
	below := open(t, srv, bucket, map[string]any{"prefix": "/a/b/"})
	if got := names(t, below, ""); !slices.Equal(got, []string{"c/"}) {
		t.Errorf("below a prefix: %q", got)
	}
}

// A bucket that keeps versions has them as @version, and what is being read stays readable.
func TestVersions(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, true)
	c := open(t, srv, bucket)
	ref := parse(t, "vsoch/hello:1")
	var all []backends.Image
	for i := range 3 {
		src := source(fmt.Appendf(nil, "version %d", i))
		src.Replaces = backends.ReplaceAny
		img, err := c.Push(t.Context(), ref, src)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, img)
	}
	fresh := open(t, srv, bucket) // which remembers nothing
	for i, img := range all {
		for _, c := range []*client{c, fresh} {
			if got := readAll(t, c, img); string(got) != fmt.Sprint("version ", i) {
				t.Errorf("version %d reads %q", i, got)
			}
		}
		old := ref
		old.Version = img.Version
		got, err := fresh.Stat(t.Context(), old)
		if err != nil || got.Version != img.Version || got.Digest != img.Digest {
			t.Errorf("Stat(%s) = %+v, %v", old, got, err)
		}
	}
	srv.Requests()
	told := map[string]bool{}
	for img, err := range fresh.Versions(t.Context(), ref) {
		if err != nil {
			t.Fatal(err)
		}
		told[img.Version] = true
		if older := img.Version != all[2].Version; older != (img.Ref.Version == img.Version) {
			t.Errorf("Versions tells %s of version %s", img.Ref, img.Version)
		}
	}
	if n := len(srv.Requests()); len(told) != 3 || n != 1 {
		t.Errorf("Versions tells %v in %d requests", told, n)
	}
	for o := range fresh.bucket.versions(t.Context(), "vsoch/hello:1.sif") {
		byVersion := ref
		byVersion.Version = o.VersionID
		if img, err := fresh.Stat(t.Context(), byVersion); err != nil || img.Version != unquote(o.ETag) {
			t.Errorf("Stat(%s) = %+v, %v", byVersion, img, err)
		}
	}
	none := ref
	none.Version = noTag
	if img, err := fresh.Stat(t.Context(), none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(%s) = %+v, %v", none, img, err)
	}
}

// Pages end anywhere, also behind names that have to be encoded.
func TestPages(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, true)
	c := open(t, srv, bucket)
	c.bucket.page = 2
	for _, key := range []string{"we ird+/a b+c:1.sif", "we ird+/a b+c:2.sif", "we ird+/a b+c:3%2F.sif"} {
		for i := range 3 {
			srv.Put(t, bucket, key, fmt.Append(nil, key, i), nil)
		}
	}
	n := 0
	for img, err := range c.Versions(t.Context(), backends.Ref{Collection: "we ird+", Name: "a b+c", Tag: "1"}) {
		if n++; err != nil {
			t.Fatal(img, err)
		}
	}
	if n != 9 {
		t.Errorf("%d versions of 9", n)
	}
}

// Where no version is kept, what was replaced is gone, and nothing else is read for it.
func TestReplacedWhileRead(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	c := open(t, srv, bucket)
	ref := parse(t, "vsoch/hello:1")
	img, err := c.Push(t.Context(), ref, source(random(1000)))
	if err != nil {
		t.Fatal(err)
	}
	srv.Put(t, bucket, "vsoch/hello:1.sif", random(1001)[1:], nil)
	if body, err := c.Open(t.Context(), img, 10, 10); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Open = %v, %v, want ErrChanged", body, err)
	}
}

// Everybody can fetch the link.
func TestShare(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	bucket := srv.Bucket(t, false)
	for _, signature := range []string{"s3v4"} {
		c := open(t, srv, bucket, map[string]any{"signature": signature})
		text := random(5000)
		src := source(text)
		src.Replaces = backends.ReplaceAny
		img, err := c.Push(t.Context(), backends.Ref{Collection: "we ird+&", Name: "ä", Tag: signature}, src)
		if err != nil {
			t.Fatal(err)
		}
		link, err := c.Share(t.Context(), img, "")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := srv.Fetch(link)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, text) {
			t.Errorf("%s: status %d, %d bytes, %v", link, resp.StatusCode, len(got), err)
		}
		if _, err := c.Share(t.Context(), img, "me@example.org"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("with a person: %v", err)
		}
	}
}

// Each refusal says what to do.
func TestRefusals(t *testing.T) {
	t.Parallel()
	srv := s3test.Start(t)
	c := open(t, srv, srv.Bucket(t, false))
	for _, test := range []struct {
		status   int
		code     string
		more     string
		sentinel error
		says     string
	}{
		{403, "InvalidAccessKeyId", "", backends.ErrUnauthorized, `sreg login lab`},
		{403, "SignatureDoesNotMatch", "", backends.ErrUnauthorized, `sreg login lab`},
		{400, "ExpiredToken", "", backends.ErrUnauthorized, `has expired: run "sreg login lab"`},
		{403, "RequestTimeTooSkewed", "", fs.ErrPermission, "clock of this machine"},
		{404, "NoSuchBucket", "", fs.ErrInvalid, "there is no bucket " + c.bucket.name},
		{301, "PermanentRedirect", "<Endpoint>b.s3.eu-west-3.amazonaws.com</Endpoint>", fs.ErrInvalid, `its endpoint is "b.s3.eu-west-3.amazonaws.com"`},
		{307, "TemporaryRedirect", "", backends.ErrUnavailable, "set url, or region"},
		{400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>", fs.ErrInvalid, `its region is "eu-west-3"`},
		{403, "AccessDenied", "", fs.ErrPermission, "AccessDenied: It is so."},
		{503, "SlowDown", "", backends.ErrRateLimited, "SlowDown"},
		{503, "InternalError", "", backends.ErrUnavailable, "InternalError"},
		{200, "InternalError", "", backends.ErrUnavailable, "InternalError"},
		{400, "EntityTooLarge", "", nil, "EntityTooLarge"},
	} {
		srv.Refuse(test.status, test.code, test.more)
		_, statErr := c.Stat(t.Context(), parse(t, "vsoch/hello:1"))
		_, listErr := backends.Collect(c.List(t.Context(), ""))
		for op, err := range map[string]error{"Stat": statErr, "List": listErr, "CheckLogin": c.CheckLogin(t.Context())} {
			if test.status == 200 && op == "Stat" {
				continue // the bytes of an object can be anything
			}
			if err == nil || test.sentinel != nil && !errors.Is(err, test.sentinel) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%s, refused with %d %s: %v", op, test.status, test.code, err)
			}
		}
	}
	anonymous := open(t, srv, c.bucket.name, map[string]any{"anonymous": true})
	srv.Refuse(403, "AccessDenied", "")
	if err := anonymous.CheckLogin(t.Context()); !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "sreg login lab") {
		t.Errorf("without a login: %v", err)
	}
}

// An address is where Amazon, and everybody else, expects it.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		config map[string]any
		region string
		want   string
	}{
		{map[string]any{"bucket": "images"}, "", "https://images.s3.us-east-1.amazonaws.com/a/b%3A1.sif"},
		{map[string]any{"bucket": "images"}, "eu-west-3", "https://images.s3.eu-west-3.amazonaws.com/a/b%3A1.sif"},
		{map[string]any{"bucket": "images", "region": "eu-west-3"}, "us-west-1", "https://images.s3.eu-west-3.amazonaws.com/a/b%3A1.sif"},
		{map[string]any{"bucket": "my.images"}, "", "https://s3.us-east-1.amazonaws.com/my.images/a/b%3A1.sif"},
		{map[string]any{"bucket": "images", "url": "http://minio:9000"}, "", "http://minio:9000/images/a/b%3A1.sif"},
		{map[string]any{"bucket": "images", "url": "https://lab.org/s3/", "prefix": "p/q"}, "", "https://lab.org/s3/images/p/q/a/b%3A1.sif"},
		{map[string]any{"bucket": "images", "url": "https://lab.org", "style": "virtual"}, "", "https://images.lab.org/a/b%3A1.sif"},
		{map[string]any{"bucket": "images", "url": "https://s3.eu-west-3.amazonaws.com", "style": "path"}, "", "https://s3.eu-west-3.amazonaws.com/images/a/b%3A1.sif"},
	} {
		b, err := Open(t.Context(), backends.Env{Remote: "lab", HTTP: &http.Client{}, Config: test.config, Getenv: func(name string) string {
			if name == "AWS_REGION" {
				return test.region
			}
			return ""
		}})
		if err != nil {
			t.Errorf("%v: %v", test.config, err)
			continue
		}
		c := b.(*client)
		if got := c.bucket.address(c.bucket.key("a/b:1.sif")).String(); got != test.want {
			t.Errorf("%v: %s, want %s", test.config, got, test.want)
		}
	}
	for _, config := range []map[string]any{
		{}, {"bucket": "a"}, {"bucket": "UPPER case"}, {"bucket": "images", "prefix": "a/../b"}, {"bucket": "images", "style": "x"},
		{"bucket": "images", "signature": "v5"}, {"bucket": "images", "url": "ftp://x"}, {"bucket": "images", "nonsense": 1},
	} {
		if _, err := Open(t.Context(), backends.Env{Remote: "lab", HTTP: &http.Client{}, Config: config}); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%v: %v, want fs.ErrInvalid", config, err)
		}
	}
}
