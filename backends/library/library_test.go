// SPDX-License-Identifier: Apache-2.0

package library_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/library"
	"github.com/sregfs/sregfs/backends/library/librarytest"
	"github.com/sregfs/sregfs/backends/oci"
)

// A remote is all that this backend can do.
type remote interface { //nolint:interfacebloat // only a sum of others
	backends.Backend
	backends.Lister
	backends.Searcher
	backends.Pusher
	backends.Deleter
	backends.NameChecker
	CheckLogin(ctx context.Context) error
}

type config = map[string]any

// newRemote opens the backend on address. change may alter its surroundings.
func newRemote(t *testing.T, cfg config, change ...func(*backends.Env)) remote {
	t.Helper()
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	env := backends.Env{Remote: "lib", Type: "library", HTTP: hc, Arch: "amd64", Config: cfg}
	for _, f := range change {
		f(&env)
	}
	b, err := library.Opener(oci.Open)(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	return b.(remote)
}

// tokens is backendtest.Tokens as the login.
func tokens(all ...string) func(*backends.Env) {
	return func(env *backends.Env) { env.Secret = backendtest.Tokens(all...) }
}

func loggedIn() func(*backends.Env) { return tokens(librarytest.Token) }

// sifOf returns n bytes that do not repeat, with the head of a SIF of that
// architecture ("02" is amd64).
func sifOf(seed, arch string, n int) []byte {
	b := []byte(strings.Repeat("\x00", 32) + "SIF_MAGIC\x0001\x00" + arch + "\x00" + strings.Repeat("\x00", 80))
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%s %d %x\n", seed, i, i*i)
	}
	return b[:n]
}

func alpine(content []byte) librarytest.Image {
	return librarytest.Image{Entity: "library", Collection: "default", Container: "alpine", Tag: "latest", Content: content}
}

func TestOpen_config(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cfg  config
		text string // part of the error; "" if there is none
	}{
		{config{}, ""},
		{config{"url": "library.sylabs.io"}, ""},
		{config{"url": "http://127.0.0.1:5000/path/", "push_by": "raw", "entities": []string{"a", "b-c"}}, ""},
		{config{"url": "ftp://x"}, "url"},
		{config{"url": "https://me:hunter2@x"}, "password"},
		{config{"url": "https://x?y"}, "more than an address"},
		{config{"push_by": "parts"}, "push_by"},
		{config{"push_by": "multiparts"}, `did you mean "multipart"?`},
		{config{"entities": []string{"A"}}, "lower-case"},
		{config{"entity": []string{"a"}}, `did you mean "entities"?`},
	} {
		_, err := library.Opener(oci.Open)(t.Context(), backends.Env{Remote: "x", Type: "library", HTTP: &http.Client{}, Config: tt.cfg})
		switch {
		case tt.text == "" && err != nil:
			t.Errorf("Open(%v): %v", tt.cfg, err)
		case tt.text != "" && (!errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("Open(%v): %v, want fs.ErrInvalid with %q", tt.cfg, err, tt.text)
		}
	}
}

// What a signature is shows without the image, and so does everything else that the
// library tells.
func TestStat_labels(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	img := alpine(sifOf("x", "02", 500))
	img.Signers, img.Description = []string{"AAAA", "BBBB"}, "A small one"
	srv.Add(img)
	plain := img
	plain.Tag, plain.Content, plain.Signers, plain.Description = "plain", sifOf("y", "02", 500), nil, "No description"
	srv.Add(plain)
	b := newRemote(t, config{"url": srv.URL})
	got := backendtest.Stat(t, b, "library/alpine:latest").Labels
	want := map[string]string{"arch": "amd64", "signed": "true", "fingerprints": "AAAA,BBBB", "encrypted": "false", "description": "A small one"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	got = backendtest.Stat(t, b, "library/alpine:plain").Labels
	if diff := cmp.Diff(map[string]string{"arch": "amd64", "signed": "false", "encrypted": "false"}, got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if n := srv.Count("GET /v1/imagefile/"); n != 0 {
		t.Errorf("%d downloads for labels", n)
	}
}

func TestStat_archs(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	intel, arm := alpine(sifOf("intel", "02", 5000)), alpine(sifOf("arm", "04", 6000))
	arm.Arch = "arm64"
	only := arm
	only.Tag = "only"
	for _, img := range []librarytest.Image{intel, arm, only} {
		srv.Add(img)
	}
	b := newRemote(t, config{"url": srv.URL, "entities": []string{"library"}})
	backendtest.WantRead(t, b, backendtest.Stat(t, b, "library/alpine:latest"), 0, -1, intel.Content)
	other := backendtest.Stat(t, b, "library/alpine:latest@arm64")
	backendtest.WantRead(t, b, other, 0, -1, arm.Content)
	if other.Ref != backendtest.Ref(t, "library/alpine:latest") || other.Labels["arch"] != "arm64" {
		t.Errorf("Stat gave %v of %q", other.Ref, other.Labels["arch"])
	}
	for _, name := range []string{"library/alpine:only", "library/alpine:latest@s390x"} {
		_, err := b.Stat(t.Context(), backendtest.Ref(t, name))
		backendtest.WantErr(t, name, err, fs.ErrNotExist)
	}
	// Versions are taken in both ways of writing, with or without a tag.
	for _, version := range []string{other.Version, strings.Replace(other.Version, ":", ".", 1)} {
		if img, err := b.Stat(t.Context(), backends.Ref{Collection: "library", Name: "alpine", Version: version}); err != nil || img.Version != other.Version {
			t.Errorf("Stat(@%s) = %q, %v", version, img.Version, err)
		}
	}
	// Only what this machine can run is listed; the long name means the same.
	if diff := cmp.Diff([]string{"library/alpine:latest"}, backendtest.Names(t, b, "library")); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if img := backendtest.Stat(t, b, "library/default/alpine:latest"); img.Digest != backendtest.Stat(t, b, "library/alpine:latest").Digest {
		t.Errorf("library/default/alpine is %s", img.Digest)
	}
}

// Ten thousand images cost a request for each collection and each container.
func TestList_requests(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	for i := range 1000 {
		for tag := range 10 {
			srv.Add(librarytest.Image{
				Entity: "lab", Collection: fmt.Sprintf("c%d", i%10), Container: fmt.Sprintf("image%d", i), Tag: fmt.Sprint(tag),
				Content: fmt.Appendf(nil, "%d %d", i, tag),
			})
		}
	}
	b := newRemote(t, config{"url": srv.URL}, loggedIn())
	images, collections := 0, []string{""}
	for len(collections) > 0 {
		at := collections[0]
		collections = collections[1:]
		for e, err := range b.List(t.Context(), at) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Collection != "" {
				collections = append(collections, e.Collection)
			} else {
				images++
			}
		}
	}
	requests := map[string]int{}
	for _, r := range srv.Requests() {
		parts := strings.Split(r.Path, "/")
		requests[strings.Join(parts[:min(3, len(parts))], "/")]++
	}
	want := map[string]int{"/version": 1, "/v1/entities": 1, "/v1/collections": 10, "/v1/containers": 1000}
	if diff := cmp.Diff(want, requests); diff != "" || images != 10_000 {
		t.Errorf("%d images; requests (-want +got):\n%s", images, diff)
	}
	// Stopping early leaves no more than what was under way.
	srv.Forget()
	for _, err := range b.List(t.Context(), "lab/c3") {
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	if n := len(srv.Requests()); n > 20 {
		t.Errorf("%d requests for the first name", n)
	}
}

// What one may not see is left out; but a token that has expired makes no names
// vanish.
func TestList_hidden(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	for _, img := range []librarytest.Image{
		{Entity: "lab", Collection: "open", Container: "tool", Tag: "1"},
		{Entity: "lab", Collection: "secret", Container: "tool", Tag: "1", Private: true},
		{Entity: "lab", Collection: "others", Container: "tool", Tag: "1", Hidden: true},
	} {
		img.Content = []byte(img.Collection)
		srv.Add(img)
	}
	anonymous := newRemote(t, config{"url": srv.URL, "entities": []string{"lab"}})
	if diff := cmp.Diff([]string{"lab/"}, backendtest.Names(t, anonymous, "")); diff != "" {
		t.Errorf("root (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"lab/open/"}, backendtest.Names(t, anonymous, "lab")); diff != "" {
		t.Errorf("without a token (-want +got):\n%s", diff)
	}
	_, err := anonymous.Stat(t.Context(), backendtest.Ref(t, "lab/secret/tool:1"))
	backendtest.WantErr(t, "Stat of a private image", err, backends.ErrUnauthorized)
	if !strings.Contains(err.Error(), `sreg login lib`) {
		t.Errorf("%v does not say what to do", err)
	}
	own := newRemote(t, config{"url": srv.URL}, loggedIn())
	if diff := cmp.Diff([]string{"lab/open/", "lab/secret/"}, backendtest.Names(t, own, "lab")); diff != "" {
		t.Errorf("with a token (-want +got):\n%s", diff)
	}
	_, err = own.Stat(t.Context(), backendtest.Ref(t, "lab/others/tool:1"))
	backendtest.WantErr(t, "Stat of a hidden image", err, fs.ErrPermission)
	expired := newRemote(t, config{"url": srv.URL, "entities": []string{"lab"}}, tokens("expired"))
	for _, at := range []string{"", "lab", "lab/open"} {
		_, err := backends.Collect(expired.List(t.Context(), at))
		backendtest.WantErr(t, "List("+at+") with an expired token", err, backends.ErrUnauthorized)
	}
	backendtest.WantErr(t, "CheckLogin with it", expired.CheckLogin(t.Context()), backends.ErrUnauthorized)
	if err := errors.Join(own.CheckLogin(t.Context()), anonymous.CheckLogin(t.Context())); err != nil {
		t.Errorf("CheckLogin: %v", err)
	}
}

// A token that ends half-way is asked for anew, once.
func TestLogin_renewed(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	for i := range 40 {
		srv.Add(librarytest.Image{Entity: "lab", Collection: "c", Container: fmt.Sprint("image", i), Tag: "1", Content: fmt.Append(nil, i)})
	}
	b := newRemote(t, config{"url": srv.URL}, tokens(librarytest.Token, "second"))
	n := 0
	for _, err := range b.List(t.Context(), "lab/c") {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 3 {
			srv.SetTokens("second")
		}
	}
	if n != 40 {
		t.Errorf("%d images, want 40", n)
	}
}

func remoteYAML(t *testing.T, home, dir, text string) {
	t.Helper()
	path := filepath.Join(home, dir, "remote.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What "singularity remote login" keeps is used, for its own library alone, and read
// again when it was refused.
func TestLogin_remoteYAML(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	srv.Add(librarytest.Image{Entity: "lab", Collection: "c", Container: "tool", Tag: "1", Content: []byte("private"), Private: true})
	other := librarytest.Start(t, librarytest.Options{})
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/assets/config/config.prod.json" || r.Header.Get("Authorization") != "" {
			t.Errorf("endpoint: %s %s, login %q", r.Method, r.URL, r.Header.Get("Authorization"))
		}
		fmt.Fprintf(w, `{"libraryAPI":{"uri":%q},"keystoreAPI":{"uri":"https://keys.example"},"frontend":null}`, srv.URL)
	}))
	t.Cleanup(endpoint.Close)
	home := t.TempDir()
	in := func(env *backends.Env) { env.Home = home }
	write := func(token string) {
		remoteYAML(t, home, ".singularity", fmt.Sprintf(
			"Active: Lab\nRemotes:\n  Lab:\n    URI: %s\n    Insecure: true\n    Token: %s\n    System: false\n    Exclusive: false\n  Other:\n    URI: %s\n    Insecure: true\n    Token: %s\n    System: false\n",
			strings.TrimPrefix(endpoint.URL, "http://"), token, strings.TrimPrefix(other.URL, "http://"), "of-the-other"))
	}
	remoteYAML(t, home, ".apptainer", "Active: DefaultRemote\nRemotes:\n  DefaultRemote:\n    URI: cloud.apptainer.org\n    System: true\n    Exclusive: false\n")
	write("old")
	srv.SetTokens("old")
	b := newRemote(t, config{}, in)
	backendtest.WantRead(t, b, backendtest.Stat(t, b, "lab/c/tool:1"), 0, -1, []byte("private"))
	srv.SetTokens("new")
	_, err := b.Stat(t.Context(), backendtest.Ref(t, "lab/c/tool:1"))
	backendtest.WantErr(t, "Stat with the old token", err, backends.ErrUnauthorized)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(".singularity", "remote.yaml")) || !strings.Contains(err.Error(), "singularity remote login") {
		t.Errorf("%v names neither the file nor what to do", err)
	}
	write("new")
	backendtest.Stat(t, b, "lab/c/tool:1")

	// A remote of another address gets its own token, or none.
	other.SetTokens("of-the-other")
	backendtest.Names(t, newRemote(t, config{"url": other.URL}, in), "")
	stranger := librarytest.Start(t, librarytest.Options{})
	backendtest.Names(t, newRemote(t, config{"url": stranger.URL}, in), "")
	for _, r := range stranger.Requests() {
		if r.Authorization != "" {
			t.Errorf("the stranger got %q", r.Authorization)
		}
	}
	for _, r := range other.Requests() {
		if r.Authorization != "" && r.Authorization != "Bearer of-the-other" {
			t.Errorf("the other got %q", r.Authorization)
		}
	}
}

// Files that are damaged, too large or full of references are no obstacle.
func TestLogin_badYAML(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	srv.Add(alpine([]byte("public")))
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), ","))
	}
	for name, text := range map[string]string{
		"damaged": "Remotes: [", "other": "- 1\n- 2\n", "large": "#" + strings.Repeat("x", 2<<20), "bomb": bomb + "Remotes: *a11\n", "empty": "",
	} {
		home := t.TempDir()
		remoteYAML(t, home, ".singularity", text)
		b := newRemote(t, config{"url": srv.URL}, func(env *backends.Env) { env.Home = home })
		if _, err := b.Stat(t.Context(), backendtest.Ref(t, "library/alpine:latest")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		srv := librarytest.Start(t, librarytest.Options{BareTags: bare})
		signed := librarytest.Image{Entity: "lab", Collection: "c", Container: "toolbox", Tag: "signed", Content: []byte("signed"), Signers: []string{"AA"}}
		plain := librarytest.Image{Entity: "lab", Collection: "default", Container: "toolkit", Tag: "1", Content: []byte("plain")}
		arm := librarytest.Image{Entity: "lab", Collection: "c", Container: "toolbox", Tag: "arm", Content: []byte("arm"), Arch: "arm64"}
		for _, img := range []librarytest.Image{signed, plain, arm} {
			srv.Add(img)
		}
		b := newRemote(t, config{"url": srv.URL})
		for query, want := range map[string][]string{
			"tool":                        {"lab/c/toolbox:signed", "lab/toolkit:1"},
			"tool signed=true":            {"lab/c/toolbox:signed"},
			"tool signed=false":           {"lab/toolkit:1"},
			"tool arch=arm64":             {"lab/c/toolbox:arm"},
			"tool arch=arm64 signed=true": {},
			"none-of-them":                {},
			"toolbox":                     {"lab/c/toolbox:signed"},
		} {
			found, err := backends.Collect(b.Search(t.Context(), query))
			if err != nil {
				t.Errorf("Search(%q): %v", query, err)
			}
			got := []string{}
			for _, img := range found {
				got = append(got, img.Ref.String())
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Search(%q) (-want +got):\n%s", query, diff)
			}
		}
		before := len(srv.Requests())
		for _, query := range []string{"", "ab", "signed=true", "  a  "} {
			_, err := backends.Collect(b.Search(t.Context(), query))
			backendtest.WantErr(t, "Search("+query+")", err, fs.ErrInvalid)
			if err == nil || !strings.Contains(err.Error(), "at least 3 characters") {
				t.Errorf("Search(%q): %v does not say the rule", query, err)
			}
		}
		if n := len(srv.Requests()) - before; n != 0 {
			t.Errorf("%d requests for what cannot be searched", n)
		}
	}
}

func TestDelete_otherTags(t *testing.T) {
	t.Parallel()
	srv := librarytest.Start(t, librarytest.Options{})
	one := alpine(sifOf("x", "02", 300))
	two := one
	two.Tag = "2"
	srv.Add(one)
	srv.Add(two)
	b := newRemote(t, config{"url": srv.URL}, loggedIn())
	err := b.Delete(t.Context(), backendtest.Stat(t, b, "library/alpine:latest"))
	backendtest.WantErr(t, "Delete of an image with another tag", err, errors.ErrUnsupported)
	if err == nil || !strings.Contains(err.Error(), "has others: 2") {
		t.Errorf("%v does not name the tag", err)
	}
	for _, tag := range []string{"latest", "2"} {
		backendtest.WantRead(t, b, backendtest.Stat(t, b, "library/alpine:"+tag), 0, -1, one.Content)
	}
	anonymous := newRemote(t, config{"url": srv.URL})
	backendtest.WantErr(t, "Delete without a token", anonymous.Delete(t.Context(), backendtest.Stat(t, anonymous, "library/alpine:2")), backends.ErrUnauthorized)
}
