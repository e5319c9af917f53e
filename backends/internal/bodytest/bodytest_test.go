// SPDX-License-Identifier: Apache-2.0

package bodytest_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

func random(seed byte, size int) []byte {
	text := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(text)
	return text
}

// Bodies that come at the same time lie in pieces between each other.
func TestStore(t *testing.T) {
	t.Parallel()
	store := bodytest.Open(t)
	bodies := make([]bodytest.Body, 4)
	var wg sync.WaitGroup
	for i := range bodies {
		wg.Go(func() {
			var err error
			bodies[i], err = store.Take(iotest.OneByteReader(bytes.NewReader(random(byte(i), 700*i))))
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var want []byte
	for i, b := range bodies {
		one := random(byte(i), 700*i)
		check(t, b, one)
		want = append(want, one...)
	}
	check(t, bodytest.Join(bodies...), want)
	check(t, bodytest.Join(bodies[2], bodytest.Body{}, bodies[2]), append(random(2, 1400), random(2, 1400)...))
	check(t, bodytest.Join(), nil)
	check(t, store.Put(want[:1000]), want[:1000])
	check(t, bodytest.Join(store.Put(nil), store.Put([]byte("x"))), []byte("x"))
}

func check(t *testing.T, b bodytest.Body, want []byte) {
	t.Helper()
	if b.Size() != int64(len(want)) || !bytes.Equal(b.Bytes(), want) {
		t.Errorf("a body of %d bytes, %d of them read, is not the %d that were stored", b.Size(), len(b.Bytes()), len(want))
	}
	if err := iotest.TestReader(b.Reader(), want); err != nil {
		t.Error(err)
	}
	for range 100 {
		off := rand.IntN(len(want) + 2)
		got := make([]byte, 1+rand.IntN(len(want)+2))
		n, err := b.ReadAt(got, int64(off))
		rest := want[min(off, len(want)):]
		if n != min(len(got), len(rest)) || !bytes.Equal(got[:n], rest[:n]) || (n < len(got)) != errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt(%d bytes, %d) of %d = %d, %v", len(got), off, len(want), n, err)
		}
	}
}

// What breaks off is an error of the reader's.
func TestTake_broken(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	b, err := bodytest.Open(t).Take(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || string(b.Bytes()) != "half" {
		t.Errorf("Take = %q, %v", b.Bytes(), err)
	}
}
