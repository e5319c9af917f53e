// SPDX-License-Identifier: Apache-2.0

package toolnames

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
)

// The first rows are those of Nextflow's own test, SingularityCacheTest.groovy.
func TestNextflowName(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"docker://foo/bar":                        "foo-bar.img",
		"docker://foo/bar:tag":                    "foo-bar-tag.img",
		"shub://hello/world":                      "hello-world.img",
		"ftp://hello/world":                       "hello-world.img",
		"foo:bar":                                 "foo-bar.img",
		"https://foo.org/image.sif":               "foo.org-image.sif",
		"oras://registry/project/image.sif:1.0":   "registry-project-image-1.0.sif",
		"docker://quay.io/a/b@sha256:0123456789a": "quay.io-a-b@sha256-0123456789a.img",
	} {
		if got := nextflowName(url); got != want {
			t.Errorf("nextflowName(%q) = %q, want %q", url, got, want)
		}
	}
}

// What a name may mean, the likeliest first: it has to begin with what the URL was.
func TestRefs(t *testing.T) {
	t.Parallel()
	const hash = "fe8faa35dbf6dc65a0f7f5d4ea12e31a79f73e40"
	oci, web, hub := backends.Type{OCI: true}, backends.Type{Folders: true}, backends.Type{}
	for _, tc := range []struct {
		path string // after the host, or all
		typ  backends.Type
		bare bool
		want string
	}{
		{"biocontainers/samtools:1.20--h50ea8bc_1", oci, false, ""},
		{"biocontainers/bioconductor-deseq2:1.42.0--r43hf17093f_2", oci, false, ""},
		{"biocontainers/python:3.9--1", oci, false, ""},
		{"biocontainers/mulled-v2-" + hash + ":" + hash + "-0", oci, false, ""},
		{"org/my-tool:dev", oci, false, ""},
		{"org/tool", oci, false, "org/tool:latest"},
		{"org/team/tool:v1.0", oci, false, ""},
		{"org/tool@sha256:" + strings.Repeat("0a", 32), oci, false, ""},
		{"tool:1.0", oci, false, "/tool:1.0"},
		{"ubuntu:22.04", oci, true, "library/ubuntu:22.04"},
		{"ubuntu", oci, true, "library/ubuntu:latest"},
		{"hello-world", oci, true, "library/hello-world:latest"},
		{"nfcore/rnaseq:3.10.1", oci, true, ""},
		{"singularity/samtools:1.20--h50ea8bc_1", web, false, ""},
		{"samtools:1.20--h50ea8bc_1", web, false, "/samtools:1.20--h50ea8bc_1"},
		{"singularity/Fancy:1.0", web, false, ""},
		{"vsoch/hello-world", hub, true, "vsoch/hello-world:latest"},
	} {
		want := tc.want
		if want == "" {
			want = tc.path
		}
		var got []string
		for _, ref := range (place{typ: tc.typ, bare: tc.bare, rest: flat(tc.path)}).refs(".img") {
			got = append(got, ref.String())
		}
		at := -1
		for i, ref := range got {
			if ref == want {
				at = i
			}
		}
		if at < 0 || at > 1 || len(got) > maxAsked {
			t.Errorf("refs of %q = %q, want %q among the first two", tc.path, got, want)
		}
	}
	for _, rest := range []string{"", "-", "--", strings.Repeat("a-", 200) + "a", "UPPER-CASE-1.0"} {
		if got := (place{typ: oci, rest: rest}).refs(".img"); len(got) > 0 {
			t.Errorf("refs of %q = %v, want none", rest, got)
		}
	}
	sif := place{typ: oci, rest: "org-tool-1.0"}.refs(".sif")
	if len(sif) == 0 || sif[0].String() != "org/tool.sif:1.0" {
		t.Errorf("refs of a .sif = %v", sif)
	}
}

// Whatever is typed, a name is only looked for if the program can have made it.
func TestNames_others(t *testing.T) {
	t.Parallel()
	cat, err := catalog.New(catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := New(cat, nil, Options{})
	for dir, find := range n.Dirs() {
		for _, name := range []string{"", ".", ".img", ".simg", "x", "README.md", "x.simg", "zz.img.lock", "\xff", strings.Repeat("0", 33) + ".simg"} {
			if _, _, err := find(t.Context(), name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s/%q: %v, want fs.ErrNotExist", dir, name, err)
			}
		}
	}
}

func TestHas(t *testing.T) {
	t.Parallel()
	written := func(prefix string, ref backends.Ref, ext string) (all []string) {
		has(prefix, ref, ext, func(url string) bool { all = append(all, url); return false })
		return all
	}
	got := written("docker://", backends.Ref{Collection: "library", Name: "alpine", Tag: "latest"}, "")
	want := []string{"docker://library/alpine:latest", "docker://library/alpine", "docker://alpine:latest", "docker://alpine"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = written("https://web/", backends.Ref{Name: "x", Tag: "1"}, ".sif")
	if diff := cmp.Diff([]string{"https://web/x:1", "https://web/x:1.sif"}, got); diff != "" {
		t.Error(diff)
	}
}
