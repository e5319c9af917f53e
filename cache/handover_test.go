// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"errors"
	"os"
	"testing"
	"time"
)

// Another process takes the directory while blobs are open: each goes on by itself,
// and neither touches what the other has.
func TestCache_handover(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client, dir := r.client(t), t.TempDir()
	whole, part := randomBytes(1, 2*mib), randomBytes(2, 40*mib)
	r.put("whole", whole)
	r.put("part", part)
	opts := Options{NoBackground: true, StrictSize: -1, Index: &memIndex{}}
	old := openCache(t, dir, opts)
	a := openBlob(t, old, client, r.image("whole", whole))
	mustWait(t, a)
	b := openBlob(t, old, client, r.image("part", part))
	mustRead(t, b, part, 0, 100)
	if err := old.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := old.HandOver(t.Context()); err != nil {
		t.Fatalf("the second HandOver: %v", err)
	}
	if _, err := old.Blob(t.Context(), client, r.image("part", part)); !errors.Is(err, ErrClosed) {
		t.Errorf("Blob after HandOver: %v", err)
	}

	heir := openCache(t, dir, Options{NoBackground: true, StrictSize: -1})
	if info := heir.Info(b.Key()); info.State != Remote {
		t.Errorf("the other process finds %v of what is coming in", info.State)
	}
	c := openBlob(t, heir, client, r.image("part", part))
	mustRead(t, c, part, 5*mib, 100)
	mustRead(t, b, part, 30*mib, 100) // not here yet, for either
	mustWait(t, b)
	mustRead(t, b, part, 0, int64(len(part)))
	if info := heir.Info(b.Key()); info.State != Partial {
		t.Errorf("what came in for one is %v for the other", info.State)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	mustWait(t, c)
	if path, ok := heir.Path(c.Key()); !ok {
		t.Errorf("%s is not there", path)
	}
	if err := heir.Remove(a.Key()); err != nil {
		t.Fatal(err)
	}
	mustRead(t, a, whole, mib, 100) // its file was removed by the other
	old.Trim()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(heir.dir.file(c.Key())); err != nil {
		t.Error(err)
	}
}

// What comes in for nobody who has it open is kept, and goes on in the other process.
func TestCache_handover_filling(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	client, dir := r.client(t), t.TempDir()
	content := randomBytes(1, 60*mib)
	r.put("a", content)
	r.set(faults{rate: 8 * mib})
	old := openCache(t, dir, Options{FillDelay: time.Nanosecond, StrictSize: -1})
	b := openBlob(t, old, client, r.image("a", content))
	mustRead(t, b, content, 0, 2*mib)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := old.HandOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	heir := openCache(t, dir, Options{NoBackground: true, StrictSize: -1})
	if have := heir.Info(b.Key()).Have; have < 2*mib {
		t.Errorf("%d bytes are left of 2 MiB", have)
	}
	r.set(faults{})
	mustWait(t, openBlob(t, heir, client, r.image("a", content)))
}
