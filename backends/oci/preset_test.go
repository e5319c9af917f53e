// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/oci"
	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/oci/presettest"
)

// preset opens a remote of a type.
func preset(t *testing.T, typ string, cfg config, change ...func(*backends.Env)) backends.Backend {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	env := backends.Env{Remote: typ, Type: typ, HTTP: hc, Config: cfg, Arch: "amd64", Home: t.TempDir()}
	for _, f := range change {
		f(&env)
	}
	b, err := oci.Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// as logs in.
func as(user, password string) func(*backends.Env) {
	return func(env *backends.Env) {
		env.User = user
		env.Secret = func(context.Context, bool) (string, error) { return password, nil }
	}
}

// holds returns what Options.Repositories wants, for a fixed list.
func holds(repos ...string) func(string) []string { return func(string) []string { return repos } }

func TestPreset_config(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		typ  string
		cfg  config
		want string // the address, or part of the error
	}{
		{"docker", config{}, "https://docker.io"},
		{"docker", config{"namespaces": []string{"library", "me"}}, "https://docker.io"},
		{"docker", config{"url": "https://mirror.lab.org"}, "https://mirror.lab.org"},
		{"ghcr", config{}, "https://ghcr.io"},
		{"quay", config{}, "https://quay.io"},
		{"gitlab", config{}, "https://registry.gitlab.com"},
		{"nvidia", config{}, "https://nvcr.io"},
		{"harbor", config{"url": "https://harbor.lab.org"}, "https://harbor.lab.org"},
		{"aws", config{"account": "123456789012", "region": "eu-central-1"}, "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com"},
		{"aws", config{"account": "123456789012", "region": "cn-north-1"}, "https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"},
		{"aws", config{"account": int64(12345678901), "region": "us-east-1"}, "https://012345678901.dkr.ecr.us-east-1.amazonaws.com"},
		{"aws", config{"url": "https://x.dkr.ecr.us-east-1.amazonaws.com"}, "https://x.dkr.ecr.us-east-1.amazonaws.com"},
		{"harbor", config{}, "url"},
		{"aws", config{}, "url"},
		{"aws", config{"account": "123"}, "twelve digits"},
		{"aws", config{"account": "123456789012", "region": "evil.example/"}, "eu-central-1"},
		{"docker", config{"namespace_": "x"}, `did you mean "namespace"?`},
		{"docker", config{"namespaces": []string{"Me"}}, "lower-case"},
		{"docker", config{"region": "x"}, "no setting"},
		{"oci", config{"url": "https://x.org", "namespaces": []string{"a"}}, "no setting"},
		{"nvidia", config{"api": "https://x.org"}, "no setting"},
		{"ghcr", config{"api": "https://me:pw@x.org"}, "api"},
		{"ghcr", config{"api": "ftp://x.org"}, "api"},
	} {
		b, err := oci.Open(t.Context(), backends.Env{Remote: "x", Type: tt.typ, HTTP: &http.Client{}, Config: tt.cfg})
		got := ""
		if err == nil {
			got = b.(interface{ Address() string }).Address()
		} else if errors.Is(err, fs.ErrInvalid) && !strings.Contains(err.Error(), "pw") {
			got = err.Error()
		}
		if got != tt.want && (err == nil || !strings.Contains(got, tt.want)) {
			t.Errorf("Open(%s, %v) = %q, %v; want %q", tt.typ, tt.cfg, got, err, tt.want)
		}
	}
}

const many = 10_000

// This many requests tell ten thousand repositories, as the pages of
// docs/backends say.
func TestPreset_manyRepositories(t *testing.T) {
	t.Parallel()
	var repos []string
	for i := range many {
		repos = append(repos, fmt.Sprintf("team/image%d", i))
	}
	slices.Sort(repos)
	for typ, want := range map[string]int{"docker": 101, "ghcr": 100, "quay": 100, "gitlab": 100, "harbor": 100} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			api := presettest.Start(t, typ, presettest.Options{Repositories: holds(repos...), User: "me", Password: "secret"})
			api.Limit(1000, time.Now().Add(time.Hour))
			b := preset(t, typ, config{"url": "http://127.0.0.1:9", "api": api.URL}, as("me", "secret"))
			for range 2 { // the second time from memory
				got, err := oci.Catalogue(t.Context(), b, "team")
				if err != nil {
					t.Fatal(err)
				}
				slices.Sort(got)
				if !slices.Equal(got, repos) {
					t.Errorf("%d repositories, want %d", len(got), len(repos))
				}
			}
			if n := len(api.Requests()); n != want {
				t.Errorf("%d requests for %d repositories, want %d", n, many, want)
			}
		})
	}
}

func TestPreset_root(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		typ    string
		cfg    config
		change []func(*backends.Env)
		want   []string // nil: it cannot be listed
	}{
		{"docker", config{}, nil, nil},
		{"docker", config{"namespaces": []string{"library"}}, nil, []string{"library/"}},
		{"docker", config{"namespaces": []string{"library"}}, []func(*backends.Env){as("Me", "x")}, []string{"library/", "me/"}},
		{"docker", config{}, []func(*backends.Env){as("", "x")}, nil},
		{"ghcr", config{}, []func(*backends.Env){as("me", "x")}, []string{"me/"}},
		{"quay", config{}, []func(*backends.Env){as("team+robot", "x")}, []string{"team/"}},
		{"quay", config{}, []func(*backends.Env){as("$oauthtoken", "x")}, nil},
		{"gitlab", config{"namespaces": []string{"a/b", "a/c/d", "e"}}, []func(*backends.Env){as("me", "x")}, []string{"a/", "e/"}},
	} {
		b := preset(t, tt.typ, tt.cfg, tt.change...)
		entries, err := backends.Collect(b.(backends.Lister).List(t.Context(), ""))
		if tt.want == nil {
			wantErr(t, tt.typ+": List of the root", err, errors.ErrUnsupported)
			continue
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Collection+"/")
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s, %v: %v, root (-want +got):\n%s", tt.typ, tt.cfg, err, diff)
		}
	}
	if _, ok := preset(t, "nvidia", config{}).(backends.Lister); ok {
		t.Error("a remote of NGC says that it can list")
	}
}

// What is asked for is there, also if nothing is in it yet; other things are not.
func TestPreset_emptyNamespace(t *testing.T) {
	t.Parallel()
	api := presettest.Start(t, "docker", presettest.Options{Repositories: holds(), Empty: func() []string { return []string{"mine", "other"} }})
	b := preset(t, "docker", config{"url": "http://127.0.0.1:9", "api": api.URL, "namespaces": []string{"mine", "typo"}}).(backends.Lister)
	if got := names(t, b, "mine"); len(got) > 0 {
		t.Errorf("an empty namespace holds %q", got)
	}
	for _, name := range []string{"other", "typo", "mine/deeper"} {
		_, err := backends.Collect(b.List(t.Context(), name))
		wantErr(t, "List of "+name, err, fs.ErrNotExist)
	}
}

// A command that tells the password is run once for a listing, not for each page.
func TestPreset_secretIsAskedOnce(t *testing.T) {
	t.Parallel()
	var repos []string
	for i := range 1000 {
		repos = append(repos, fmt.Sprintf("team/image%d", i))
	}
	for _, typ := range []string{"docker", "ghcr", "quay", "gitlab", "harbor"} {
		api := presettest.Start(t, typ, presettest.Options{Repositories: holds(repos...), User: "me", Password: "new"})
		var asked []bool
		b := preset(t, typ, config{"url": "http://127.0.0.1:9", "api": api.URL}, func(env *backends.Env) {
			env.User = "me"
			if typ == "quay" {
				env.User = ""
			}
			env.Secret = func(_ context.Context, fresh bool) (string, error) {
				asked = append(asked, fresh)
				return map[bool]string{false: "old", true: "new"}[fresh], nil
			}
		})
		got, err := oci.Catalogue(t.Context(), b, "team")
		if err != nil || len(got) != len(repos) {
			t.Errorf("%s: %d repositories, %v", typ, len(got), err)
		}
		if fmt.Sprint(asked) != "[false true]" {
			t.Errorf("%s: the secret was asked for with fresh = %v, want false, then true", typ, asked)
		}
	}
}

// What is private is told to who may see it.
func TestPreset_private(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	for _, repo := range []string{"open/a", "closed/b"} {
		reg.PushSIF(repo, "1", []byte(repo), nil)
	}
	for typ, user := range map[string]string{
		"docker": "me", "ghcr": "me", "quay": "$oauthtoken", "gitlab": "me", "harbor": "robot$me",
	} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			api := presettest.Start(t, typ, presettest.Options{
				Repositories: reg.Repositories, Private: []string{"closed"}, User: user, Password: "secret",
			})
			cfg := config{"url": reg.URL, "api": api.URL}
			in := preset(t, typ, cfg, as(user, "secret")).(backends.Lister)
			if got := names(t, in, "closed"); !slices.Equal(got, []string{"closed/b:1"}) {
				t.Errorf("who is logged in sees %q", got)
			}
			out := preset(t, typ, cfg).(backends.Lister)
			if typ == "ghcr" {
				_, err := backends.Collect(out.List(t.Context(), "open"))
				wantErr(t, "List without a login", err, errors.ErrUnsupported)
				return
			}
			if got := names(t, out, "open"); !slices.Equal(got, []string{"open/a:1"}) {
				t.Errorf("who is not sees %q", got)
			}
			_, err := backends.Collect(out.List(t.Context(), "closed"))
			wantErr(t, "List of what is not shown", err, fs.ErrNotExist)
		})
	}
}

// A login that has expired is exit code 4, not an empty directory.
func TestPreset_expired(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{"docker", "ghcr", "quay", "gitlab", "harbor"} {
		t.Run(typ, func(t *testing.T) {
			t.Parallel()
			user := "me"
			if typ == "quay" {
				user = ""
			}
			api := presettest.Start(t, typ, presettest.Options{Repositories: holds("team/a"), User: "me", Password: "secret"})
			b := preset(t, typ, config{"url": "http://127.0.0.1:9", "api": api.URL}, as(user, "secret"))
			if _, err := oci.Catalogue(t.Context(), b, "team"); err != nil {
				t.Fatal(err)
			}
			api.Expire()
			for _, ns := range []string{"other", "third"} {
				_, err := oci.Catalogue(t.Context(), b, ns)
				wantErr(t, "with an old password", err, backends.ErrUnauthorized)
				if err != nil && strings.Contains(err.Error(), "secret") {
					t.Errorf("%v tells the password", err)
				}
			}
		})
	}
	t.Run("token of Docker Hub", func(t *testing.T) {
		t.Parallel()
		api := presettest.Start(t, "docker", presettest.Options{
			Repositories: func(ns string) []string { return []string{ns + "/a"} }, User: "me", Password: "secret",
		})
		b := preset(t, "docker", config{"url": "http://127.0.0.1:9", "api": api.URL}, as("me", "secret"))
		for i, ns := range []string{"one", "two", "three"} {
			if i == 2 {
				api.ExpireTokens()
			}
			if _, err := oci.Catalogue(t.Context(), b, ns); err != nil {
				t.Fatal(err)
			}
		}
		var posts int
		for _, line := range api.Requests() {
			if strings.HasPrefix(line, "POST ") {
				posts++
			}
		}
		if posts != 2 {
			t.Errorf("%d logins for three namespaces and one token that expired, want 2: %q", posts, api.Requests())
		}
	})
}

// A user's projects are asked for as such: they are in no group.
func TestPreset_gitlab(t *testing.T) {
	t.Parallel()
	repos := []string{"group/project", "group/project/tool", "group/sub/other/x", "someone/mine/y"}
	api := presettest.Start(t, "gitlab", presettest.Options{
		Repositories: holds(repos...), Users: []string{"someone"}, User: "me", Password: "secret",
	})
	open := func(namespaces ...string) backends.Backend {
		return preset(t, "gitlab", config{"url": "http://127.0.0.1:9", "api": api.URL, "namespaces": namespaces}, as("me", "secret"))
	}
	for _, tt := range []struct {
		b    backends.Backend
		path string
		want []string
	}{
		{open(), "group/sub", repos[:3]},
		{open("group/sub"), "group/sub/other", repos[2:3]},
		{open("group/sub"), "group", append([]string{"group/sub/"}, repos[:3]...)},
		{open("someone/mine"), "someone/mine", repos[3:]},
		{open("someone/mine"), "someone", []string{"someone/mine/"}},
	} {
		got, err := oci.Catalogue(t.Context(), tt.b, tt.path)
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", tt.path, err, diff)
		}
	}
	_, err := oci.Catalogue(t.Context(), open(), "someone")
	wantErr(t, "a user without projects that are named", err, fs.ErrNotExist)
}

func TestPreset_harborRoot(t *testing.T) {
	t.Parallel()
	api := presettest.Start(t, "harbor", presettest.Options{Repositories: holds("library/a", "team/b/c", "secret/d"), Private: []string{"secret"}})
	b := preset(t, "harbor", config{"url": api.URL}).(backends.Lister)
	if got := names(t, b, ""); !slices.Equal(got, []string{"library/", "team/"}) {
		t.Errorf("the root holds %q", got)
	}
}

// The login is for the registry, and goes to the API that belongs to it or is
// configured: never to that of the public service with a registry of one's own.
func TestPreset_whoGetsTheLogin(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{User: "me", Password: "secret"})
	reg.PushSIF("team/a", "1", []byte("x"), nil)
	for _, typ := range []string{"docker", "ghcr", "gitlab"} {
		b := preset(t, typ, config{"url": reg.URL}, as("me", "secret"), func(env *backends.Env) {
			next := env.HTTP.Transport
			env.HTTP.Transport = roundTrip(func(req *http.Request) (*http.Response, error) {
				if req.URL.Host != reg.Host {
					t.Errorf("%s: request to %s", typ, req.URL.Host)
				}
				return next.RoundTrip(req)
			})
		})
		if got := names(t, b.(backends.Lister), "team"); !slices.Equal(got, []string{"team/a:1"}) {
			t.Errorf("%s lists %q by the registry's own catalogue", typ, got)
		}
	}
}
