// SPDX-License-Identifier: Apache-2.0

package records

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Making a collection costs the same however many were made: the file is appended to,
// and is written anew only when most of it is of collections that are gone.
func TestMade_appends(t *testing.T) {
	t.Parallel()
	r := New(t.TempDir())
	path := filepath.Join(r.dir, collectionsFile)
	make2 := func(i int) {
		t.Helper()
		if err := r.Make("lab", fmt.Sprintf("c%d/sub", i)); err != nil {
			t.Fatal(err)
		}
	}
	make2(0)
	first, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	size := first.Size()
	for i := 1; i <= 300; i++ {
		make2(i)
		now, err := os.Stat(path)
		if err != nil || !os.SameFile(first, now) {
			t.Fatalf("the file was replaced (%v)", err)
		}
		if grown := now.Size() - size; grown > 200 {
			t.Fatalf("%d bytes for the collection %d", grown, i)
		}
		size = now.Size()
	}
	for i := range 300 {
		if err := r.Unmake("lab", fmt.Sprintf("c%d/sub", i)); err != nil {
			t.Fatal(err)
		}
	}
	for range 300 {
		make2(1)
		if err := r.Unmake("lab", "c1/sub"); err != nil {
			t.Fatal(err)
		}
	}
	if now, err := os.Stat(path); err != nil || now.Size() > 100*maxChanges {
		t.Errorf("%v, %v", now, err)
	}
	fresh := New(r.dir)
	for name, r := range map[string]*Records{"here": r, "read again": fresh} {
		if got := r.Children("lab", ""); len(got) != 1 || !got["c300"] {
			t.Errorf("%s: children of the top: %v", name, got)
		}
		if !r.IsMade("lab", "c300") || !r.IsMade("lab", "c300/sub") || r.IsMade("lab", "c1") || r.IsMade("web", "c300") {
			t.Errorf("%s: what is made", name)
		}
	}
}

// What a crash or a person left in the file is passed over, and the rest is good.
func TestMade_damaged(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text string
		want int
	}{
		"by hand": {`[{"remote":"lab","collection":"a"}]`, 2},
		"torn":    {"[\n]\n" + `{"remote":"lab","collection":"a"}` + "\n" + `{"remote":"lab","coll`, 2},
		"no JSON": {"[{torn", 1},
		"empty":   {"", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(t.TempDir())
			path := filepath.Join(r.dir, collectionsFile)
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := r.Make("lab", "b"); err != nil {
				t.Fatal(err)
			}
			fresh := New(r.dir)
			for _, r := range []*Records{r, fresh} {
				if got := r.Children("lab", ""); len(got) != tc.want || !got["b"] {
					t.Errorf("children = %v, want %d", got, tc.want)
				}
			}
		})
	}
}
