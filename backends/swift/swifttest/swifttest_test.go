// SPDX-License-Identifier: Apache-2.0

package swifttest

import (
	"fmt"
	"testing"
)

// It is a Swift: what is put is listed, and many names are there at once.
func TestStart(t *testing.T) {
	t.Parallel()
	s := Start(t)
	a := s.Account()
	a.Put(t, "c/one", []byte("1"), nil)
	if got := a.Names(t, "c"); len(got) != 1 || got[0] != "one" {
		t.Errorf("c has %q", got)
	}
	var names []string
	for i := range 5000 {
		names = append(names, fmt.Sprintf("n%d", i))
	}
	a.Fill(t, "many", names)
	if got := a.Names(t, "many"); len(got) != len(names) {
		t.Errorf("many has %d names, want %d", len(got), len(names))
	}
}
