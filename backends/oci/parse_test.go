// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	const secret, form, put = "secret", "form", "put"
	for _, tt := range []struct {
		home, authHost, to, carries string
		want                        error
	}{
		{"https://r.org", "", "https://r.org/v2/", secret, nil},
		{"https://r.org", "", "https://r.org:443/v2/", put, nil},
		{"https://r.org", "", "https://R.org/token", form, nil},
		{"https://r.org", "", "https://r.org:8443/token", secret, nil},
		{"https://r.org", "", "https://auth.r.org/token", secret, nil},
		{"https://registry.gitlab.com", "", "https://gitlab.com/jwt/auth", secret, nil},
		{"https://registry-1.docker.io", "", "https://auth.docker.io/token", form, nil},
		{"https://r.org", "login.example", "https://login.example/token", form, nil},
		{"https://r.org", "login.example:444", "https://login.example:444/token", secret, nil},
		{"http://127.0.0.1:5000", "", "http://127.0.0.1:5001/token", secret, nil},
		{"https://r.org", "", "https://cdn.example/blob", "", nil},

		{"https://r.org", "", "http://r.org/token", secret, backends.ErrUnauthorized},
		{"https://r.org", "login.example", "http://login.example/token", form, backends.ErrUnauthorized},
		{"https://r.org", "login.example:444", "https://login.example/token", form, backends.ErrUnauthorized},
		{"https://r.org", "", "https://evil.example/token", secret, backends.ErrUnauthorized},
		{"https://r.org", "", "https://evil.example/token", form, backends.ErrUnauthorized},
		{"https://a.r.org", "", "https://b.r.org/token", secret, backends.ErrUnauthorized},
		{"https://r.org", "", "https://evilr.org/token", secret, backends.ErrUnauthorized},
		{"https://r.org", "", "https://org/token", secret, backends.ErrUnauthorized},
		{"https://r.org", "", "https://auth.docker.io/token", form, backends.ErrUnauthorized},
		{"http://10.0.0.1", "", "http://0.1/token", secret, backends.ErrUnauthorized},
		{"https://r.org", "", "https://cdn.example/upload", put, backends.ErrBadAnswer},
		{"https://r.org", "", "https://auth.r.org/upload", put, backends.ErrBadAnswer},
		{"https://r.org", "", "http://r.org/upload", put, backends.ErrBadAnswer},
	} {
		home, err := url.Parse(tt.home)
		if err != nil {
			t.Fatal(err)
		}
		method := map[string]string{form: http.MethodPost, put: http.MethodPut, secret: http.MethodGet, "": http.MethodGet}[tt.carries]
		req, err := http.NewRequestWithContext(t.Context(), method, tt.to, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch tt.carries {
		case secret:
			req.SetBasicAuth("me", "secret")
		case form:
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		sent := false
		g := &guard{home: home, authHost: tt.authHost, next: roundTrip(func(*http.Request) (*http.Response, error) {
			sent = true
			return &http.Response{Body: http.NoBody}, nil
		})}
		resp, err := g.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if !errors.Is(err, tt.want) || sent != (tt.want == nil) {
			t.Errorf("%s, auth_host %q: %s with %q: error %v, sent %v; want %v", tt.home, tt.authHost, tt.to, tt.carries, err, sent, tt.want)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestNextLink(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]string{
		"":                                   "",
		"garbage":                            "",
		"<unclosed":                          "",
		"</v2/x?last=1>":                     "/v2/x?last=1",
		`</v2/x>; rel="next"`:                "/v2/x",
		`</v2/x>; rel=NEXT; title="a, <b>"`:  "/v2/x",
		`</a>; rel="prev", </b>; rel="next"`: "/b",
		`</a>; title=", </x>"; rel=prev,</b>; rel="last next"`: "/b",
		`</a>; rel="prev"`: "",
	} {
		if got := nextLink([]string{header}); got != want {
			t.Errorf("nextLink(%q) = %q, want %q", header, got, want)
		}
	}
	if got := nextLink([]string{`</a>; rel=prev`, `</b>; rel=next`}); got != "/b" {
		t.Errorf("two headers gave %q, want /b", got)
	}
}

func TestUploaded(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]int64{
		"0-0": 1, "0-999": 1000, "bytes=0-999": 1000, "bytes 0-999": 1000,
		"": -1, "1-2": -1, "0-": -1, "0--5": -1, "0-99999999999999999999": -1, "0-9223372036854775807": -1,
	} {
		got, err := uploaded(header)
		if want < 0 && !errors.Is(err, backends.ErrBadAnswer) || want >= 0 && (err != nil || got != want) {
			t.Errorf("uploaded(%q) = %d, %v, want %d", header, got, err, want)
		}
	}
}

func TestSIFCreated(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "short", strings.Repeat("x", 100), strings.Repeat("\x00", 32) + "SIF_MAGIC\x00" + strings.Repeat("\xff", 60)} {
		if got := sifCreated(strings.NewReader(content)); !got.IsZero() {
			t.Errorf("sifCreated(%q) = %v, want none", content, got)
		}
	}
}

func TestTargets_expire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var targets redirects
		targets.put("a", "https://cdn/a")
		time.Sleep(httpx.LinkLife - time.Second)
		if to, _ := targets.get("a"); to == "" {
			t.Error("a target was forgotten too early")
		}
		time.Sleep(2 * time.Second)
		if to, wait := targets.get("a"); to != "" || wait != nil {
			t.Errorf("target %s is used for too long", to)
		}
		_, wait := targets.get("a") // another one asks already
		if wait == nil {
			t.Fatal("two ask anew")
		}
		targets.put("a", "https://cdn/b")
		<-wait
		targets.expire("a", "https://cdn/a") // the one before
		if to, _ := targets.get("a"); to != "https://cdn/b" {
			t.Errorf("target %s, want the new one", to)
		}
	})
}

func FuzzNextLink(f *testing.F) {
	for _, s := range []string{`</v2/x?last=1>; rel="next"`, `<a>;rel=prev,<b>`, `<a>;x="`, "<><><>", `>,<`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := nextLink([]string{header}); !strings.Contains(header, "<"+got+">") && got != "" {
			t.Errorf("nextLink(%q) = %q, which is not in it", header, got)
		}
	})
}

func FuzzManifest(f *testing.F) {
	digest := "sha256:" + strings.Repeat("0", 64)
	f.Add([]byte(`{"layers":[{"mediaType":"` + sifLayer + `","digest":"` + digest + `","size":5}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"` + digest + `","platform":{"architecture":"amd64"}}]}`))
	f.Add([]byte(`{"layers":[{}],"manifests":[{}]}`))
	f.Add([]byte(`[]`))
	c := &client{arch: "amd64", base: &url.URL{Scheme: "http", Host: "x"}, login: &login{}}
	c.auth = newAuth(&http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{}, Body: http.NoBody}, nil
	})}, c.login)
	f.Fuzz(func(t *testing.T, body []byte) {
		img, err := c.image(t.Context(), "a/b", manifest{digest: digest, body: bytes.Clone(body)}, "amd64")
		if err == nil && (img.Size < 0 || backends.CheckDigest(img.Digest) != nil || img.Digest == "" || img.Version == "") {
			t.Errorf("image %+v from %q", img, body)
		}
		if err != nil && !isAnswer(err) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("manifest %q: %v", body, err)
		}
	})
}

func TestFollow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ from, link, want string }{
		{"https://reg.org/v2/_catalog", "/v2/_catalog?last=a", "/v2/_catalog?last=a"},
		{"https://reg.org/v2/_catalog", "https://REG.org:443/v2/_catalog?last=a", "/v2/_catalog?last=a"},
		{"https://reg.org/v2/_catalog", "http://reg.org/v2/_catalog?last=a", "/v2/_catalog?last=a"}, // behind a proxy
		{"http://reg.org:80/v2/_catalog", "http://reg.org/v2/_catalog?last=a", "/v2/_catalog?last=a"},
		{"https://reg.org/v2/_catalog", "https://reg.org:8443/v2/_catalog?last=a", ""},
		{"https://reg.org/v2/_catalog", "https://other.org:443/v2/_catalog?last=a", ""},
	} {
		from, err := url.Parse(tt.from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := follow(from, tt.link)
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("follow(%s, %s) = %q, %v, want %q", tt.from, tt.link, got, err, tt.want)
		}
	}
}

func TestChallenges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		header string
		want   []string
	}{
		{`Bearer realm="https://a/t",service="a \", b",scope="x:y:pull,push"`, []string{`Bearer realm="https://a/t",service="a \", b",scope="x:y:pull,push"`}},
		{`Negotiate YII=, basic Realm = "a, b" , Charset=UTF-8`, []string{"Negotiate YII=", `basic realm="a, b",charset=UTF-8`}},
		{`,, Negotiate ,`, []string{"Negotiate"}},
		{`stray="x"`, nil},
		{`Bearer realm="open`, []string{`Bearer realm="open`}},
	} {
		if got := challenges([]string{tt.header}); !slices.Equal(got, tt.want) {
			t.Errorf("challenges(%s) = %q, want %q", tt.header, got, tt.want)
		}
	}
}
