// SPDX-License-Identifier: Apache-2.0

package bounded_test

import (
	"testing"

	"github.com/sregfs/sregfs/backends/internal/bounded"
)

func TestMap(t *testing.T) {
	t.Parallel()
	m := bounded.Map[int, string]{Max: 3}
	if _, ok := m.Get(1); ok {
		t.Error("an empty map has something")
	}
	for i := range 10 {
		m.Put(i, "old")
		m.Put(i, "new")
		if v, ok := m.Get(i); !ok || v != "new" {
			t.Errorf("%d is %q, %v", i, v, ok)
		}
	}
	if n := len(m.Keys()); n != 3 {
		t.Errorf("%d entries, want 3", n)
	}
	m.Update(9, func(old string, ok bool) (string, bool) { return old + "er", ok })
	if v, _ := m.Get(9); v != "newer" {
		t.Errorf("updated to %q", v)
	}
	m.Update(99, func(old string, ok bool) (string, bool) { return old, ok })
	m.Delete(9)
	for _, key := range []int{9, 99} {
		if _, ok := m.Get(key); ok {
			t.Errorf("%d is there", key)
		}
	}
}
