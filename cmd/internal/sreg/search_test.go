// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bytes"
	"testing"
)

// What was searched for is marked where it is, whatever its case, and nowhere else.
func TestTable_marks(t *testing.T) {
	t.Parallel()
	const on, off = "\x1b[1;36m", "\x1b[0m"
	tab := newTable(&bytes.Buffer{}, "URI", "STATE")
	tab.marks = append(marksOf("lab://green*:1?"), marksOf("label:Maintainer")...)
	for cell, want := range map[string]string{
		"lab://x/Green-tea:1":  "lab://x/" + on + "Green" + off + "-tea" + on + ":1" + off,
		"maintainer=greenpeas": on + "maintainer" + off + "=" + on + "green" + off + "peas",
		"nothing":              "nothing",
		"":                     "",
		"İgreen":               "İgreen", // longer in lower case
	} {
		if got := tab.mark(cell); got != want {
			t.Errorf("%q: %q, want %q", cell, got, want)
		}
	}
	tab.row("a/green:1", "green")
	if got := tab.paint(1, 1, "green"); got != "green" {
		t.Errorf("another column: %q", got)
	}
}
