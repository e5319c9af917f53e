// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/all"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// What people write for other programs means what it means there.
func TestResolve_schemes(t *testing.T) {
	t.Parallel()
	remote := func(name, typ, url string) catalog.Remote { return catalog.Remote{Name: name, Type: typ, URL: url} }
	some := []catalog.Remote{
		remote("dh", "docker", "https://docker.io"), remote("git", "ghcr", "https://ghcr.io"), remote("q", "oci", "https://quay.io"),
		remote("old", "hub", ""), remote("lib1", "library", "https://a.example"), remote("lib2", "library", "https://b.example"),
	}
	named := []catalog.Remote{remote("docker", "docker", "https://docker.io"), remote("oras", "oci", "https://x.example")}
	regs := []catalog.Remote{remote("registry", "sregistry", "https://reg.example"), remote("lab", "sregistry", "http://127.0.0.1:6200/sub/api")}
	reg := []catalog.Remote{remote("lab", "sregistry", "http://127.0.0.1:6200")}
	other := []catalog.Remote{remote("docker", "oci", "https://mirror.example")}
	for _, tc := range []struct {
		remotes []catalog.Remote
		uri     string
		want    string // URI, or a part of the error
		err     error
	}{
		{some, "docker://alpine:3.20", "dh://library/alpine:3.20", nil},
		{some, "docker://me/tool", "dh://me/tool:latest", nil},
		{some, "docker://quay.io/a/b:1", "q://a/b:1", nil},
		{some, "docker://docker.io/library/alpine", "dh://library/alpine:latest", nil},
		{some, "docker://index.docker.io/me/tool:2", "dh://me/tool:2", nil},
		{some, "registry-1.docker.io/me/tool:2", "dh://me/tool:2", nil},
		{some, "docker://nvcr.io/a/b", `is on the host "nvcr.io", and no remote has it (type: sreg remote add nvidia nvidia)`, fs.ErrNotExist},
		{some, "oras://ghcr.io/a/b:1", "git://a/b:1", nil},
		{some, "oras://ghcr.io/org/team/b@sha256:12", "git://org/team/b:latest@sha256:12", nil},
		{some, "oras://a/b:1", "names no host (write oras://HOST/a/b:1)", fs.ErrInvalid},
		{some, "oras://example.org/a/b:1", `the host "example.org", and no remote has it (type: sreg remote add NAME oci url=https://example.org)`, fs.ErrNotExist},
		{some, "shub://vsoch/hello", "old://vsoch/hello:latest", nil},
		{some, "library://alpine", "say which of lib1://library/alpine:latest, lib2://library/alpine:latest", fs.ErrInvalid},
		{some, "nvidia://pytorch:1", `no remote is named "nvidia" or of type "nvidia" (type: sreg remote add nvidia nvidia)`, fs.ErrNotExist},
		{nil, "docker://alpine", "sreg remote add docker docker", fs.ErrNotExist},
		{nil, "shub://a/b", "sreg remote add shub hub", fs.ErrNotExist},
		{nil, "http://a/b", `no remote is named "http"`, fs.ErrNotExist},
		{named, "docker://alpine:3.20", "docker://library/alpine:3.20", nil},
		{named, "docker://docker.io/me/tool", "docker://me/tool:latest", nil},
		{named, "docker://quay.io/a/b", `"quay.io", and no remote has it`, fs.ErrNotExist},
		{named, "oras://ghcr.io/a/b", "oras://ghcr.io/a/b:latest", nil}, // the name of a remote goes first
		// As the sregistry client takes it: a host may come first, as a part more than it needs.
		{regs, "registry://vanessa/tacos:1", "registry://vanessa/tacos:1", nil},
		{regs, "registry://127.0.0.1:6200/vanessa/tacos:1", "lab://vanessa/tacos:1", nil},
		{regs, "registry://reg.example/vanessa/tacos", "registry://vanessa/tacos:latest", nil},
		{regs, "registry://Old_Style.Name/x_y:1", "registry://Old_Style.Name/x_y:1", nil},
		{regs, "registry://Old_Style.Name/team/x:1", "registry://Old_Style.Name/team/x:1", nil},
		{regs, "registry://127.0.0.1:7000/vanessa/tacos:1", `the host "127.0.0.1:7000", and no remote has it (type: sreg remote add NAME sregistry url=https://127.0.0.1:7000)`, fs.ErrNotExist},
		{reg, "registry://vanessa/tacos:1", "lab://vanessa/tacos:1", nil},
		{reg, "registry://127.0.0.1:6200/vanessa/tacos:1", "lab://vanessa/tacos:1", nil},
		{reg, "registry://reg.example/vanessa/tacos:1", `the host "reg.example", and no remote has it (type: sreg remote add NAME sregistry url=https://reg.example)`, fs.ErrNotExist},
		{other, "docker://quay.io/a/b", "docker://quay.io/a/b:latest", nil},
	} {
		c, err := catalog.New(catalog.Options{Remotes: append([]catalog.Remote{{Name: "local", Type: "dir"}}, tc.remotes...)})
		if err != nil {
			t.Fatal(err)
		}
		v := verbs.New(c, uploads.New(c, nil), verbs.Options{Types: all.Types})
		r, ref, err := v.Resolve(t.Context(), tc.uri, verbs.Reading)
		if !errors.Is(err, tc.err) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Resolve(%q): error %v, want %v: %s", tc.uri, err, tc.err, tc.want)
		}
		if got := (backends.URI{Remote: r.Name, Ref: ref}).String(); err == nil && got != tc.want {
			t.Errorf("Resolve(%q) = %s, want %s", tc.uri, got, tc.want)
		}
	}
}
