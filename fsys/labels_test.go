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
