// SPDX-License-Identifier: Apache-2.0

package library

import (
	"slices"
	"testing"

	"github.com/sregfs/sregfs/backends"
)

// The order is the example of https://semver.org, 11, with the versions that matter.
func TestVersion(t *testing.T) {
	t.Parallel()
	order := []string{
		"", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0",
		"1.9.0", "1.10.0", "2.0.0-alpha.1", "2.0.0-alpha.2", "2.0.0-alpha.10", "2.0.0", "v2.0.1+build", "10.0.0",
	}
	for i, a := range order {
		for j, b := range order {
			if got := parseVersion(a).atLeast(parseVersion(b)); got != (i >= j) {
				t.Errorf("%q at least %q: %v", a, b, got)
			}
		}
	}
	for _, bad := range []string{"2", "2.0", "2.0.0.0", "x.y.z", "9999999999.0.0", "-1.0.0", "2.0.0-"} {
		if v := parseVersion(bad); v.atLeast(parseVersion("0.0.0")) && v.numbers != [3]int{} {
			t.Errorf("parseVersion(%q) = %+v", bad, v)
		}
	}
	if !parseVersion("2.0.0-alpha.2").atLeast(withArchTags) || parseVersion("2.0.0-alpha.1").atLeast(withArchTags) || !parseVersion("2.0.0-alpha.1").atLeast(withUpload) {
		t.Error("the versions of the library are taken for others")
	}
}

// The shortest name of an image is read back as the same one.
func TestSplit(t *testing.T) {
	t.Parallel()
	for _, n := range []name{{"library", "default", "alpine", "1"}, {"a", "b", "c", "d"}, {"default", "default", "default", "default"}} {
		if got := split(n.ref()); got != n {
			t.Errorf("split(%v) = %v, want %v", n.ref(), got, n)
		}
	}
	long := backends.Ref{Collection: "library/default", Name: "alpine", Tag: "1"}
	if got := split(long).ref(); got.Collection != "library" {
		t.Errorf("split(%v).ref() = %v", long, got)
	}
}

// What is kept of a listing has an end, and a push makes it old.
func TestListing(t *testing.T) {
	t.Parallel()
	var l listing
	before := l.generation()
	l.putCollection(before, "a/b", collection{Name: "b", Containers: []string{"1"}})
	if _, ok := l.collection("a/b"); !ok {
		t.Error("a collection that was just listed is not known")
	}
	l.putCollection(before, "a/huge", collection{Name: "huge", Containers: make([]string, maxKept)})
	if _, ok := l.collection("a/huge"); ok {
		t.Error("a collection of any size is kept")
	}
	l.forget()
	if _, ok := l.collection("a/b"); ok {
		t.Error("it is known after a push")
	}
	l.putCollection(before, "a/b", collection{Name: "b"})
	if _, ok := l.collection("a/b"); ok {
		t.Error("what was read before the push is kept after it")
	}
	if got, err := distinct([]string{"a", "b", "a"}); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("distinct = %q, %v", got, err)
	}
	if _, err := distinct(make([]string, maxListed+1)); err == nil {
		t.Error("a listing of any size is taken")
	}
}
