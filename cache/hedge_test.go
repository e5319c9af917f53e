// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/sched"
)

// A request that gets stuck in the middle is asked again for the rest, once.
func TestHedge_stuck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		stalls := 0
		far := &distant{rtt: 50 * time.Millisecond, rate: 50e6, stall: func(int64) bool { stalls++; return stalls == 1 }}
		c := openCache(t, dir, Options{NoBackground: true})
		b := openBlob(t, c, backends.NewClient("lab", far, backends.ClientOptions{}), distantImage(8*mib))
		start := time.Now()
		buf := make([]byte, mib)
		if _, err := b.ReadAt(buf, 2*mib); err != nil || string(buf) != string(numbered(2*mib, mib)) {
			t.Fatalf("ReadAt: %v, or other bytes", err)
		}
		// The answer, silence until it counts as stalled, two round trips on another connection.
		if took := time.Since(start); took < sched.StuckMin || took > sched.StuckMin+400*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if far.requests != 2 || far.sent != mib {
			t.Errorf("%d requests, %d bytes, want 2 and %d", far.requests, far.sent, mib)
		}
	})
}

// A request whose answer does not even begin, too; and what nobody waits for,
// later.
func TestHedge_background(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		far := &distant{rtt: 50 * time.Millisecond, rate: 50e6}
		far.stall = func(off int64) bool { return off == 0 && far.requests == 1 }
		c := openCache(t, dir, Options{})
		b := openBlob(t, c, backends.NewClient("lab", far, backends.ClientOptions{}), distantImage(2*mib))
		start := time.Now()
		if err := b.Wait(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 4*sched.StuckMin || took > 4*sched.StuckMin+sched.StuckMin {
			t.Errorf("took %v", took)
		}
	})
}
