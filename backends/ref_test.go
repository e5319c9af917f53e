// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// The names that sregistry's own parser was run with, and what we make of
// them. docs/names.md explains the differences.
func TestParseURI(t *testing.T) {
	t.Parallel()
	tests := []struct{ in, remote, host, collection, name, tag, version, out string }{
		{"ubuntu", "", "", "library", "ubuntu", "latest", "", "library/ubuntu:latest"},
		{"ubuntu:14.04", "", "", "library", "ubuntu", "14.04", "", "library/ubuntu:14.04"},
		{"library/ubuntu:latest@version", "", "", "library", "ubuntu", "latest", "version", "library/ubuntu:latest@version"},
		{"vsoch/hello-world", "", "", "vsoch", "hello-world", "latest", "", "vsoch/hello-world:latest"},
		{"vsoch/Hello-World:V1.0", "", "", "vsoch", "Hello-World", "V1.0", "", "vsoch/Hello-World:V1.0"},
		{"ubuntu@sha256:abcDEF", "", "", "library", "ubuntu", "latest", "sha256:abcDEF", "library/ubuntu:latest@sha256:abcDEF"},
		{"a/b/c", "", "", "a/b", "c", "latest", "", "a/b/c:latest"},
		{"a/b/c/d:tag", "", "", "a/b/c", "d", "tag", "", "a/b/c/d:tag"},
		{"collection/sub/image:tag@ver", "", "", "collection/sub", "image", "tag", "ver", "collection/sub/image:tag@ver"},
		{"quay.io/foo/bar:1.0", "", "quay.io", "foo", "bar", "1.0", "", "quay.io/foo/bar:1.0"},
		{"localhost:5000/foo", "", "localhost:5000", "library", "foo", "latest", "", "localhost:5000/library/foo:latest"},
		{"localhost:5000/foo/bar:t", "", "localhost:5000", "foo", "bar", "t", "", "localhost:5000/foo/bar:t"},
		{"user/image.name:1.2.3", "", "", "user", "image.name", "1.2.3", "", "user/image.name:1.2.3"},
		{"expfactory-master.simg", "", "", "library", "expfactory-master", "latest", "", "library/expfactory-master:latest"},
		{"vsoch/img:1.simg", "", "", "vsoch", "img", "1", "", "vsoch/img:1"},
		{"vsoch/my.imgs/foo:x", "", "", "vsoch/my.imgs", "foo", "x", "", "vsoch/my.imgs/foo:x"},
		{"lab://vsoch/hello", "lab", "", "vsoch", "hello", "latest", "", "lab://vsoch/hello:latest"},
		{"lab://hello:2", "lab", "", "library", "hello", "2", "", "lab://library/hello:2"},
		{"lab:///hello:2", "lab", "", "", "hello", "2", "", "lab:///hello:2"},
		{"lab://quay.io/foo/bar:1.0", "lab", "", "quay.io/foo", "bar", "1.0", "", "lab://quay.io/foo/bar:1.0"},
		{"lab://c/a%3Ab:feature%2Fx", "lab", "", "c", "a:b", "feature/x", "", "lab://c/a%3Ab:feature%2Fx"},
		{"dinosaur", "", "", "library", "dinosaur", "latest", "", "library/dinosaur:latest"},
		{"/dinosaur", "", "", "", "dinosaur", "latest", "", "/dinosaur:latest"},
	}
	for _, tt := range tests {
		u, err := ParseURI(tt.in)
		want := URI{Remote: tt.remote, Host: tt.host, Ref: Ref{Collection: tt.collection, Name: tt.name, Tag: tt.tag, Version: tt.version}, Bare: u.Bare}
		if err != nil || u != want {
			t.Errorf("ParseURI(%q) = %+v, %v, want %+v", tt.in, u, err, want)
		}
		if got := u.String(); got != tt.out {
			t.Errorf("ParseURI(%q).String() = %q, want %q", tt.in, got, tt.out)
		}
		if again, err := ParseURI(u.String()); err != nil || again.Ref != u.Ref || again.Remote != u.Remote || again.Host != u.Host {
			t.Errorf("ParseURI(%q) = %+v, %v, want %+v", u.String(), again, err, u)
		}
	}
}

func TestParseURI_bad(t *testing.T) {
	t.Parallel()
	for _, in := range []string{
		"", "foo/", "vsoch/", "@ver", ":tag", "foo/bar:Tag:x", "foo/bar:", "foo/bar@", "a//b", "./local.sif", "../x", "a/../b", "a/./b",
		"://x", "-x://a", "not a remote://a/b", strings.Repeat("r", 65) + "://a", "a/b%", "a/b%zz", "a%2Fb/c", "a/%00", "http://127.0.0.1/vanessa:8/tacos:latest:x",
	} {
		if u, err := ParseURI(in); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("ParseURI(%q) = %+v, %v, want fs.ErrInvalid", in, u, err)
		}
	}
}

func TestURI_bare(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]bool{"ubuntu": true, "lab://ubuntu:1": true, "a/b": false, "lab:///b": false, "quay.io/b": true, "x@a/b": true} {
		if u, err := ParseURI(in); err != nil || u.Bare != want {
			t.Errorf("ParseURI(%q).Bare = %v, %v, want %v", in, u.Bare, err, want)
		}
	}
}

func TestRef_text(t *testing.T) {
	t.Parallel()
	want := Ref{Collection: "a/ü", Name: "b:c", Tag: "1.sif", Version: "sha256:00"}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Ref
	if err := json.Unmarshal(text, &got); err != nil || got != want {
		t.Errorf("%s is read as %+v, %v, want %+v", text, got, err, want)
	}
}

// Any name that a registry may hold survives being written and read.
func FuzzRef(f *testing.F) {
	f.Add("a/b", "c", "latest", "")
	f.Add("", "c.sif", "1.0.img", "sha256:00.sif")
	f.Add("a:b@c", "%2F", "x/y", "@")
	f.Add(".a/..b", "\xff\n", " ", ".")
	f.Fuzz(func(t *testing.T, collection, name, tag, version string) {
		ref := Ref{Collection: collection, Name: name, Tag: tag, Version: version}
		if ref.Check() != nil || tag == "" {
			return
		}
		got, err := ParseRef(ref.String())
		if err != nil || got != ref {
			t.Errorf("ParseRef(%q) = %+v, %v, want %+v", ref.String(), got, err, ref)
		}
		u := URI{Remote: "r", Ref: ref}
		if got, err := ParseURI(u.String()); err != nil || got.Ref != ref || got.Remote != "r" {
			t.Errorf("ParseURI(%q) = %+v, %v, want %+v", u.String(), got, err, u)
		}
	})
}

// Whatever a person types, what is made of it reads as itself.
func FuzzParseURI(f *testing.F) {
	for _, s := range []string{"ubuntu", "a/b:c@d", "r://a/b", "quay.io/a/b", "r:///b", "localhost:5000/x:y", "%41/b", "a@b/c.sif"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			if !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("ParseURI(%q): %v", s, err)
			}
			return
		}
		if err := u.Ref.Check(); err != nil {
			t.Errorf("ParseURI(%q) = %+v: %v", s, u, err)
		}
		again, err := ParseURI(u.String())
		if err != nil || again.Ref != u.Ref || again.Remote != u.Remote || again.Host != u.Host {
			t.Errorf("ParseURI(%q) = %+v, written %q, read %+v, %v", s, u, u, again, err)
		}
	})
}
