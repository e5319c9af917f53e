// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"
)

// A panic of a backend is the error of the call that met it: it is in the log with
// its stack, no slot is lost, and it is not tried again.
func TestClient_panics(t *testing.T) {
	t.Parallel()
	var nothing []byte
	backend := &scripted{
		stat: func(context.Context, int) (Image, error) { return Image{Size: int64(nothing[7])}, nil },
		open: func(_ context.Context, off, _ int64) (io.ReadCloser, error) {
			if off == 0 {
				panic("open")
			}
			return io.NopCloser(panicReader{}), nil
		},
		list: func(context.Context, int) iter.Seq2[Entry, error] {
			return func(yield func(Entry, error) bool) {
				yield(Entry{Image: testImage}, nil)
				panic("list")
			}
		},
		push: func(context.Context, int, Source) (Image, error) { panic("push") },
		del:  func(int) error { panic("delete") },
	}
	var log bytes.Buffer
	c := NewClient("lab", backend, ClientOptions{Concurrency: 2, MaxElapsed: time.Minute, Log: slog.New(slog.NewTextHandler(&log, nil))})
	img := testImage
	calls := map[string]func() error{
		"stat": func() error { _, err := c.Stat(t.Context(), testRef); return err },
		"open": func() error { _, err := c.Open(t.Context(), img, 0, -1); return err },
		"read": func() error {
			body, err := c.Open(t.Context(), img, 1, -1)
			if err == nil {
				_, err = io.ReadAll(body)
			}
			return err
		},
		"list": func() error { _, err := Collect(c.List(t.Context(), "c")); return err },
		"push": func() error {
			_, err := c.Push(t.Context(), testRef, Source{Content: strings.NewReader("x"), Size: 1, Digest: "md5:" + strings.Repeat("0", 32)})
			return err
		},
		"delete": func() error { return c.Delete(t.Context(), img) },
	}
	for range 3 { // more often than there are slots
		for name, call := range calls {
			log.Reset()
			err := call()
			if _, ok := errors.AsType[*PanicError](err); !ok || !strings.HasPrefix(err.Error(), name+" lab://c") {
				t.Errorf("%s: %v, want a panic", name, err)
			}
			if !strings.Contains(log.String(), "guard_test.go") || strings.Count(log.String(), "\n") != 1 {
				t.Errorf("%s: the log has\n%s", name, &log)
			}
		}
	}
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("read") }

// A panic of the loop over a listing is the caller's own.
func TestClient_panicOfTheLoop(t *testing.T) {
	t.Parallel()
	c := NewClient("lab", &scripted{list: func(context.Context, int) iter.Seq2[Entry, error] {
		return func(yield func(Entry, error) bool) { yield(Entry{Image: testImage}, nil) }
	}}, ClientOptions{})
	defer func() {
		if got := recover(); got != "mine" {
			t.Errorf("recovered %v, want the loop's own panic", got)
		}
	}()
	for range c.List(t.Context(), "c") {
		panic("mine")
	}
}

// No size that a registry tells gets further than the client, and one image that
// has an impossible one leaves the others of its listing alone.
func TestClient_sizes(t *testing.T) {
	t.Parallel()
	for size, possible := range map[int64]bool{
		-1: true, 0: true, MaxSize: true, MaxSize + 1: false, 1e15: false, 1 << 60: false, math.MaxInt64: false, -2: false, math.MinInt64: false,
	} {
		img := testImage
		img.Size = size
		other := testImage
		other.Ref.Tag = "other"
		opened := false
		c := NewClient("lab", &scripted{
			stat: func(context.Context, int) (Image, error) { return img, nil },
			push: func(context.Context, int, Source) (Image, error) { return img, nil },
			open: func(context.Context, int64, int64) (io.ReadCloser, error) {
				opened = true
				return io.NopCloser(strings.NewReader("x")), nil
			},
			list: func(context.Context, int) iter.Seq2[Entry, error] {
				return func(yield func(Entry, error) bool) {
					_ = yield(Entry{Image: img}, nil) && yield(Entry{Image: other}, nil)
				}
			},
		}, ClientOptions{})
		_, statErr := c.Stat(t.Context(), testRef)
		_, pushErr := c.Push(t.Context(), testRef, Source{Content: strings.NewReader("x"), Size: 1, Digest: "md5:" + strings.Repeat("0", 32)})
		listed, listErr := Collect(c.List(t.Context(), "c"))
		body, openErr := c.Open(t.Context(), img, 0, 1)
		if openErr == nil {
			body.Close()
		}
		if possible {
			if err := errors.Join(statErr, pushErr, listErr, openErr); err != nil || len(listed) != 2 {
				t.Errorf("size %d: %v, %d listed", size, err, len(listed))
			}
			continue
		}
		for _, err := range []error{statErr, pushErr, openErr} {
			if !errors.Is(err, ErrBadAnswer) || !strings.Contains(err.Error(), "c/i:t") {
				t.Errorf("size %d: %v, want ErrBadAnswer that names the image", size, err)
			}
		}
		if listErr != nil || len(listed) != 1 || listed[0].Image.Ref.Tag != "other" || c.Hidden() != 1 || opened {
			t.Errorf("size %d: listed %v, %v, %d hidden, opened: %v", size, listed, listErr, c.Hidden(), opened)
		}
	}
}
