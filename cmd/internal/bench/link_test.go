// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"testing"
	"testing/synctest"
	"time"
)

// sendAll sends n bytes in slices over a meter, as a connection does.
func sendAll(m *meter, n, rate int64, from time.Time) {
	for n > 0 {
		part := min(n, int64(sliceOf(rate)))
		time.Sleep(time.Until(m.reserve(int(part), rate, from)))
		n -= part
	}
}

func TestMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m meter
		start := time.Now()
		sendAll(&m, 100e6, 50e6, start)
		if took := time.Since(start); took.Round(time.Millisecond) != 2*time.Second {
			t.Errorf("100 MB at 50 MB/s took %v, want 2 s", took)
		}
		// A second answer, after a pause: nothing is saved up.
		time.Sleep(time.Minute)
		start = time.Now()
		sendAll(&m, 1e6, 50e6, start)
		if took := time.Since(start); took.Round(time.Millisecond) != 20*time.Millisecond {
			t.Errorf("1 MB at 50 MB/s took %v, want 20 ms", took)
		}
	})
}

// A sender whom the timers woke late catches up; one whose peer did not read for
// long does not.
func TestMeter_late(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct{ late, want time.Duration }{
			{5 * time.Millisecond, 100 * time.Millisecond},
			{time.Second, time.Second + 100*time.Millisecond - maxLate},
		} {
			var m meter
			start := time.Now()
			m.reserve(1, 10e6, start)
			time.Sleep(c.late)
			sendAll(&m, 1e6, 10e6, start)
			if took := time.Since(start); took.Round(time.Millisecond) != c.want {
				t.Errorf("1 MB at 10 MB/s, begun %v late, was there after %v, want %v", c.late, took, c.want)
			}
		}
	})
}

// All who share a wire get as much as it has, in turns.
func TestMeter_shared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var m meter
		start := time.Now()
		took := make(chan time.Duration)
		for range 4 {
			go func() {
				sendAll(&m, 25e6, 100e6, start)
				took <- time.Since(start)
			}()
		}
		for range 4 {
			if d := <-took; d < 990*time.Millisecond || d > 1010*time.Millisecond {
				t.Errorf("a quarter of 100 MB at 100 MB/s was there after %v, want 1 s", d)
			}
		}
	})
}
