// SPDX-License-Identifier: Apache-2.0

package sregistry

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

// tacos are the signatures that a real client made.
var tacos = map[kind]string{
	kindPush: "ba46d83a39d1e5971157184480f04068260c6c4fbfca928b74491b77248f774f",
	kindPull: "2f9b0bc593473f05d3c893b997c376762d94ebbe46a2d5adc29dcaf350a04629",
}

func TestSign_vectors(t *testing.T) {
	t.Parallel()
	for k, signature := range tacos {
		want := "SREGISTRY-HMAC-SHA256 Credential=" + string(k) + "/dmFuZXNzYQ==/20190712T14Z,Signature=" + signature
		if got := sign("vanessa", "t0k3n", k, "20190712T14Z", name{"vanessa", "tacos", "1.0"}); got != want {
			t.Errorf("sign(%s) = %q, want %q", k, got, want)
		}
	}
}

func TestNeighbour(t *testing.T) {
	t.Parallel()
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		now, server, want string
		told              bool
	}{
		{now: "2026-01-01T00:02:00Z", want: "20251231T23Z"},
		{now: "2026-01-01T00:58:00Z", want: "20260101T01Z"},
		{now: "2026-01-01T00:58:00Z", server: "2026-01-01T00:57:00Z", want: "20260101T01Z"},
		{now: "2026-01-01T00:58:00Z", server: "2026-01-03T05:00:00Z", want: "20260103T05Z", told: true},
	} {
		refusal := errors.New("no answer")
		if tt.server != "" {
			refusal = fmt.Errorf("wrapped: %w", &answerError{status: 403, date: at(tt.server), err: refusal})
		}
		got, told := neighbour(at(tt.now), refusal)
		if signTime(got) != tt.want || told != tt.told {
			t.Errorf("neighbour(%s, %s) = %s, %v, want %s, %v", tt.now, tt.server, signTime(got), told, tt.want, tt.told)
		}
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	sha, md5 := strings.Repeat("0a", 32), strings.Repeat("1b", 16)
	for in, want := range map[string][2]string{
		"sha256." + sha: {"sha256:" + sha, "sha256:" + sha},
		"sha256:" + sha: {"sha256:" + sha, "sha256:" + sha},
		sha:             {"sha256:" + sha, "sha256:" + sha},
		md5:             {"md5:" + md5, "md5:" + md5},
		"md5." + md5:    {"md5:" + md5, "md5:" + md5},
		"sha256." + md5: {"sha256." + md5, ""},
		"md5." + sha:    {"md5." + sha, ""},
		"v1.0":          {"v1.0", ""},
		"":              {"", ""},
	} {
		version, digest := parseVersion(in)
		if diff := cmp.Diff(want, [2]string{version, digest}); diff != "" {
			t.Errorf("parseVersion(%q) (-want +got):\n%s", in, diff)
		}
	}
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://registry.lab.org":        "https://registry.lab.org",
		"https://Registry.lab.org/":       "https://registry.lab.org",
		"https://registry.lab.org/api":    "https://registry.lab.org",
		"http://127.0.0.1:8000/api/":      "http://127.0.0.1:8000",
		"registry.lab.org/api":            "https://registry.lab.org",
		"https://lab.org/sregistry/api//": "https://lab.org/sregistry",
	} {
		got, err := parseURL(in)
		if err != nil || got.String() != want {
			t.Errorf("parseURL(%q) = %v, %v, want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "ftp://x", "https://", "https://me:secret@x", "https://x?q=1", "https://x#f", "://"} {
		if got, err := parseURL(in); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("parseURL(%q) = %v, %v, want an error without secrets", in, got, err)
		}
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	public := &client{home: mustURL(t, "https://registry.example")}
	inside := &client{home: mustURL(t, "http://10.1.2.3:8000")}
	for _, tt := range []struct {
		c        *client
		in, want string
	}{
		{public, "https://store.example/x?sig=1", "https://store.example/x?sig=1"},
		{public, "http://registry.example/containers/1", "https://registry.example/containers/1"},
		{public, "/containers/1", "https://registry.example/containers/1"},
		{public, "http://store.example/x", ""},
		{public, "https://127.0.0.1/x", ""},
		{public, "https://[::1]/x", ""},
		{public, "https://[::ffff:169.254.169.254]/x", ""},
		{public, "https://localhost:9000/x", ""},
		{public, "https://a.localhost./x", ""},
		{public, "https://192.168.0.7/x", ""},
		{public, "https://me:pw@store.example/x", ""},
		{public, "file:///etc/passwd", ""},
		{public, "gopher://x", ""},
		{inside, "http://10.1.2.4:9000/x", "http://10.1.2.4:9000/x"},
		{inside, "http://store.example/x", "http://store.example/x"},
	} {
		got, err := tt.c.target(tt.in)
		switch {
		case tt.want == "" && !errors.Is(err, backends.ErrBadAnswer):
			t.Errorf("target(%q) = %v, %v, want ErrBadAnswer", tt.in, got, err)
		case tt.want != "" && (err != nil || got.String() != tt.want):
			t.Errorf("target(%q) = %v, %v, want %s", tt.in, got, err, tt.want)
		}
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := parseURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func FuzzNames(f *testing.F) {
	f.Add("vsoch/hello:1.0")
	f.Add("org/team/tool:latest@sha256.00")
	f.Add("a/b/c/d:")
	f.Add("/:x")
	f.Fuzz(func(t *testing.T, uri string) {
		n := parseURI(uri)
		ref := n.ref()
		if (&client{}).CheckName(ref) != nil {
			return
		}
		if got := split(ref); got != n {
			t.Errorf("split(ref(%+v)) = %+v", n, got)
		}
		if ref.Tag != "" && parseURI(n.String()) != n {
			t.Errorf("parseURI(%q) = %+v", n.String(), parseURI(n.String()))
		}
		if u, err := url.Parse("https://x/api/container/" + n.String()); err != nil || u.Path != "/api/container/"+n.String() || u.RawQuery != "" {
			t.Errorf("%q does not stand in a path as it is: %v %v", n, u, err)
		}
	})
}

// Whatever a server says of a container, what comes of it is an image that can
// be shown, or an error.
func FuzzManifest(f *testing.F) {
	f.Add(`{"id":1,"name":"i","tag":"1","version":"sha256.00","collection":"c","metadata":{"labels":{"a":"b"}}}`)
	f.Add(`{"id":"x","name":"I","tag":"1","version":null,"add_date":"9999-99-99","collection":{},"metadata":[]}`)
	f.Add(`429`)
	f.Fuzz(func(t *testing.T, text string) {
		n := name{"c", "i", "1"}
		var m manifest
		err := decode(nil, []byte(text), &m)
		m, err = checked(m, n, err)
		if err != nil {
			return
		}
		c := &client{home: &url.URL{Scheme: "https", Host: "x"}}
		img := c.image(m, n)
		if err := errors.Join(img.Ref.Check(), backends.CheckDigest(img.Digest), c.CheckName(img.Ref)); err != nil || img.Version == "" || img.Size != -1 {
			t.Errorf("%q became %+v: %v", text, img, err)
		}
	})
}
