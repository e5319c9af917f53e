// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A service that gives out rubbish under the digest of something good keeps
// nobody from the good one.
func TestMismatch_oneLiar(t *testing.T) {
	t.Parallel()
	good, evil := newRegistry(t), newRegistry(t)
	content := randomBytes(1, 4*mib)
	img, fake := good.image("a", content), evil.image("b", content)
	evil.set(faults{mangle: flip(7, 1e9)})
	c := openCache(t, t.TempDir(), Options{})
	goodClient, evilClient := good.client(t), evil.client(t)
	bad := openBlob(t, c, evilClient, fake)
	if err := bad.Wait(t.Context(), nil); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Wait for rubbish, sent twice = %v, want ErrCorrupt", err)
	}
	if _, err := c.Blob(t.Context(), evilClient, fake); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("Blob from the liar = %v, want ErrCorrupt", err)
	}
	b := openBlob(t, c, goodClient, img)
	mustWait(t, b)
	mustRead(t, b, content, 0, 4*mib)
	mustRead(t, openBlob(t, c, evilClient, fake), content, 0, 4*mib) // it is here
}

func TestMismatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		it := &item{common: &common{}}
		if again := it.mismatched(backends.ErrCorrupt); !again || it.mismatch.refusal() != nil || !it.mismatch.refused().IsZero() {
			t.Errorf("after one wrong download: again %v, %+v", again, it.mismatch)
		}
		again := it.mismatched(backends.ErrCorrupt)
		if again || !errors.Is(it.mismatch.refusal(), backends.ErrCorrupt) || time.Until(it.mismatch.refused()) != mismatchHold {
			t.Errorf("after two: again %v, %+v", again, it.mismatch)
		}
		time.Sleep(mismatchHold)
		if err := it.mismatch.refusal(); err != nil || it.mismatch != (mismatch{}) {
			t.Errorf("refused for ever: %v", err)
		}
	})
}
