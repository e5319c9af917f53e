// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A service that gives out rubbish under the digest of something good keeps
// nobody from the good one.
func TestStrike_oneLiar(t *testing.T) {
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

// Where a download came from several services, the next one comes from one, and
// the other one is not taken in before that ended.
func TestStrike_mixed(t *testing.T) {
	t.Parallel()
	good, evil := newRegistry(t), newRegistry(t)
	content := randomBytes(1, 4*mib)
	img, fake := good.image("a", content), evil.image("b", content)
	evil.set(faults{mangle: flip(7, 1e9)})
	c := openCache(t, t.TempDir(), Options{NoBackground: true})
	goodClient, evilClient := good.client(t), evil.client(t)
	first := openBlob(t, c, evilClient, fake)
	if _, err := first.ReadAt(make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	second := openBlob(t, c, goodClient, img)
	if err := second.Wait(t.Context(), nil); err != nil {
		t.Errorf("Wait = %v; the second download should be the good one's", err)
	}
	mustRead(t, openBlob(t, c, goodClient, img), content, 0, 4*mib)
}

func TestStrikes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a, b := backends.NewClient("a", nil, backends.ClientOptions{}), backends.NewClient("b", nil, backends.ClientOptions{})
		it := &item{cache: &Cache{ctx: ctx}}
		both := []source{{client: a}, {client: b}, {client: a}}
		next, ok := it.strike(backends.ErrCorrupt, both)
		if !ok || next.client != a || it.strikes[a].row != 1 || it.strikes[b].row != 1 {
			t.Errorf("after one download from both: next %v (%v), %v", next.client, ok, it.strikes)
		}
		if next, ok = it.strike(backends.ErrCorrupt, both[:1]); ok {
			t.Errorf("after two from one: next %v", next.client)
		}
		if next, ok = it.strike(backends.ErrCorrupt, both[:2]); ok || it.strikes[b].row != 2 {
			t.Errorf("after two from each: next %v, %v", next.client, it.strikes)
		}
		until, why := it.strikes.refused()
		if left := time.Until(until); left != strikeHold || !errors.Is(why, backends.ErrCorrupt) {
			t.Errorf("refused for %v: %v", left, why)
		}
		time.Sleep(strikeHold)
		if err := it.strikes.refusal(a); err != nil {
			t.Errorf("refused for ever: %v", err)
		}
		if until, why := it.strikes.refused(); !until.IsZero() || why != nil {
			t.Errorf("refused until %v: %v", until, why)
		}
	})
}
