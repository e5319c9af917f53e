// SPDX-License-Identifier: Apache-2.0

package libapi_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/libapi"
)

// The sums are those of the bytes that were given out, however they are read.
func TestHashed(t *testing.T) {
	t.Parallel()
	content := strings.NewReader(strings.Repeat("0123456789", 1000))
	for _, part := range []struct{ off, n int64 }{{0, 10_000}, {5, 1}, {9_990, 10}, {0, 0}, {100, 5000}} {
		want := make([]byte, part.n)
		if _, err := content.ReadAt(want, part.off); err != nil && part.n > 0 {
			t.Fatal(err)
		}
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "half": iotest.HalfReader,
		} {
			told := 0
			h := libapi.NewHashed(content, part.off, part.n).WithMD5()
			h.Tell = func(n int) { told += n }
			got, err := io.ReadAll(wrap(h))
			if err != nil || !bytes.Equal(got, want) || h.Failed() != nil || told != len(want) {
				t.Errorf("%s: %v gave %d bytes and told %d, %v, %v", name, part, len(got), told, err, h.Failed())
			}
			if h.SHA256() != fmt.Sprintf("%x", sha256.Sum256(want)) || h.MD5() != fmt.Sprintf("%x", md5.Sum(want)) {
				t.Errorf("%s: %v has the sums %s and %s", name, part, h.SHA256(), h.MD5())
			}
		}
	}
}

// Of content that turns out to be wrong the end is never given out.
func TestHashed_heldBack(t *testing.T) {
	t.Parallel()
	wrong := errors.New("wrong")
	h := libapi.NewHashed(strings.NewReader("content"), 0, 7)
	h.Check = func() error { return wrong }
	got, err := io.ReadAll(iotest.OneByteReader(h))
	if !errors.Is(err, wrong) || string(got) != "conten" || !errors.Is(h.Failed(), wrong) {
		t.Errorf("read %q, %v, %v", got, err, h.Failed())
	}
	if n, err := h.Read(make([]byte, 9)); n != 0 || !errors.Is(err, wrong) {
		t.Errorf("after that: %d bytes, %v", n, err)
	}
	h = libapi.NewHashed(strings.NewReader("short"), 0, 7)
	if got, err := io.ReadAll(h); !errors.Is(err, backends.ErrCorrupt) || len(got) > 5 {
		t.Errorf("of a source that became shorter: %q, %v", got, err)
	}
	src := backends.Source{Content: strings.NewReader("x"), Size: 1, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("x")))}
	if err := libapi.CheckSource(src); err != nil {
		t.Error(err)
	}
	src.Content = strings.NewReader("y")
	if err := libapi.CheckSource(src); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("CheckSource of other bytes: %v", err)
	}
}

// What a transport still reads of a request that is over is nothing.
func TestHashed_over(t *testing.T) {
	t.Parallel()
	h := libapi.NewHashed(strings.NewReader("abcdef"), 0, 6)
	told := 0
	h.Tell = func(n int) { told += n }
	var reading sync.WaitGroup
	reading.Go(func() {
		for err := error(nil); err == nil; {
			_, err = h.Read(make([]byte, 1))
		}
	})
	if err := h.Failed(); err != nil {
		t.Error(err)
	}
	was := told
	if n, err := h.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v after the end", n, err)
	}
	reading.Wait()
	if told != was {
		t.Errorf("told of %d bytes after the end", told-was)
	}
	if err := h.Failed(); err != nil {
		t.Errorf("again: %v", err)
	}
}
