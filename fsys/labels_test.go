// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackLabels(t *testing.T) {
	t.Parallel()
	for _, want := range []map[string]string{
		{}, {"a": "b"}, {"": ""}, {"a": "", "": "b", "c\x00": strings.Repeat("long", 100)},
	} {
		if diff := cmp.Diff(want, maps.Collect(labelsIn(packLabels(want)))); diff != "" {
			t.Errorf("labels: -want +got\n%s", diff)
		}
	}
}

// Attributes are printed as they are, names too: nothing in them obeys a terminal.
func TestForPeople(t *testing.T) {
	t.Parallel()
	got := printable(map[string]string{
		"uri": "lab://a/b:1", "label.\x1b[2J": "gone", "label.c1": "\u009b31m red", "label.bidi\u202e": "\u202egnp", "label.lines": "a\nb", "empty": "",
	})
	want := map[string]string{
		"uri": "lab://a/b:1", `label.\x1b[2J`: "gone", "label.c1": `\u009b31m red`, `label.bidi\u202e`: `\u202egnp`, "label.lines": `a\nb`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
