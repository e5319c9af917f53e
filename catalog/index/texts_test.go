// SPDX-License-Identifier: Apache-2.0

package index_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
)

func labelled(t *testing.T, m *index.Index, q index.LabelQuery) []string {
	t.Helper()
	var all []string
	for ref, err := range m.Labelled("lab", q) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, ref.String())
	}
	slices.Sort(all)
	return all
}

// Labels in listings are found by key and value, whether they were stored before there was an
// index of them or after.
func TestLabelled(t *testing.T) {
	t.Parallel()
	put := func(name string, labels map[string]string) index.KV {
		ref := backends.Ref{Collection: "c", Name: name, Tag: "1"}
		img := backends.Image{Ref: ref, Size: 1, Version: strings.Repeat("v", 200), Digest: "md5:x", Modified: time.Unix(1, 5), Format: "sif", Labels: labels}
		return index.KV{Key: index.ImageKey("lab", ref), Value: index.Encode(index.Entry{Flags: index.Full | index.InListing, Image: img}, ref)}
	}
	store := mem.New()
	long := strings.Repeat("x", 1000)
	// As an older release did: past the index.
	if err := store.Apply(put("old", map[string]string{"Arch": "AMD64"}), put("none", nil), put("long", map[string]string{"text": long + "y"})); err != nil {
		t.Fatal(err)
	}
	m := index.New(store)
	check := func(q index.LabelQuery, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, labelled(t, m, q)); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", q, diff)
		}
	}
	check(index.LabelQuery{Key: "arch", Value: "amd64"}, "c/old:1")
	many := make(map[string]string)
	for i := range 500 {
		many[fmt.Sprintf("label%03d", i)] = "x"
	}
	if err := m.Apply(put("new", map[string]string{"arch": "arm64", "a/b": "c/d"}), put("many", many)); err != nil {
		t.Fatal(err)
	}
	check(index.LabelQuery{Key: "ARCH"}, "c/new:1", "c/old:1")
	check(index.LabelQuery{Key: "arch", Value: "a*64"}, "c/new:1", "c/old:1")
	check(index.LabelQuery{Key: "A/B", Value: "*d"}, "c/new:1")
	check(index.LabelQuery{Key: "arch", Value: "amd"})
	check(index.LabelQuery{Key: "arc"})
	check(index.LabelQuery{Key: "text", Value: long + "y"}, "c/long:1")
	check(index.LabelQuery{Key: "label003", Value: "x"}, "c/many:1")
}

// What is stored of an image is found, whatever its case, as it was.
func TestTexts(t *testing.T) {
	t.Parallel()
	m := index.New(mem.New())
	ref := backends.Ref{Collection: "c", Name: "x", Tag: "1"}
	want := index.Text{Key: "sha256:1", Labels: map[string]string{"a": "B"}, Help: "Ein Gerät für GRÜNE Bäume " + strings.Repeat(".", 300), Definition: "From: Ubuntu"}
	if err := m.SaveText("lab", ref, want); err != nil {
		t.Fatal(err)
	}
	if got, ok := m.Text("lab", ref); !ok || !cmp.Equal(got, want) {
		t.Errorf("Text = %+v, %v", got, ok)
	}
	for text, found := range map[string]bool{"ubuntu": true, "UBUNTU": true, "grüne": true, "gerät": true, "red hat": false, "": true} {
		n := 0
		for got, text := range m.Texts("lab", text) {
			if n++; got != ref || !cmp.Equal(text, want) {
				t.Errorf("%+v %+v", got, text)
			}
		}
		if (n == 1) != found {
			t.Errorf("%q: found %d", text, n)
		}
	}
	for range m.Texts("la", "ubuntu") {
		t.Error("of another remote")
	}
}
