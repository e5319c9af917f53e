// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mib = 1 << 20

func TestWindow(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		reads [][2]int64 // off, n
		want  []int64    // bytes ahead of each read's end
	}{
		"probe":      {[][2]int64{{0, 112 << 10}, {0, 112 << 10}}, []int64{0, 0}},
		"random":     {[][2]int64{{40 * mib, 4096}, {9 * mib, 4 * mib}, {90 * mib, 4096}}, []int64{0, 0, 0}},
		"sequential": {[][2]int64{{0, mib}, {mib, mib}, {2 * mib, 2 * mib}, {4 * mib, 4 * mib}, {8 * mib, 8 * mib}, {16 * mib, 16 * mib}, {32 * mib, mib}}, []int64{mib, 2 * mib, 4 * mib, 8 * mib, 16 * mib, 16 * mib, 0}},
		"unordered":  {[][2]int64{{128 << 10, 128 << 10}, {0, 128 << 10}, {256 << 10, mib}}, []int64{0, 0, mib}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var w Window
			var got []int64
			for _, r := range test.reads {
				got = append(got, w.note(r[0], r[0]+r[1], maxWindow)-r[0]-r[1])
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("ahead (-want +got):\n%s", diff)
			}
		})
	}
}
