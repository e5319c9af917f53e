// SPDX-License-Identifier: Apache-2.0

package badger

import "testing"

func TestRest(t *testing.T) {
	t.Parallel()
	var r rest
	written, rests := int64(0), 0
	ticks := func(n int, each int64) {
		for range n {
			written += each
			if r.tick(written) {
				rests++
			}
		}
	}
	for _, step := range []struct {
		seconds int
		each    int64
		want    int
		why     string
	}{
		{100, 0, 0, "nothing was written"},
		{restSeconds, 1000, 0, "little was written"},
		{100, 0, 0, "little was written, and then nothing"},
		{3, restAfter, 0, "it is being written"},
		{restSeconds - 1, 0, 0, "it might go on"},
		{1, 1, 0, "it went on"},
		{restSeconds, 0, 1, "much was written, and then nothing"},
		{1000, 0, 1, "it is told once"},
		{1, restAfter, 1, "it is being written again"},
		{restSeconds, 0, 2, "much was written again"},
	} {
		if ticks(step.seconds, step.each); rests != step.want {
			t.Errorf("%d rests where %s, want %d", rests, step.why, step.want)
		}
	}
}
