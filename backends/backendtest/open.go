// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
)

var openTests = []subtest{
	{name: "Open/bytes", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, want := range r.seed.Images {
			img := stat(t.Context(), t, r, want.Ref)
			got, err := read(t.Context(), r, img, 0, -1)
			if err != nil {
				t.Errorf("Open(%s): %v", want.Ref, err)
			}
			sameBytes(t, want.Ref.String(), got, want.Content)
		}
	}},
	{name: "Open/range-vs-oracle", run: func(t *testing.T, s *suite) {
		big := sized("big/image:1", 300_000)
		r := s.open(t, big)
		img := stat(t.Context(), t, r, big.Ref)
		random := rand.New(rand.NewPCG(1, 2))
		for range 60 {
			off := random.Int64N(int64(len(big.Content)))
			n := random.Int64N(40_000)
			if random.IntN(5) == 0 {
				n = -1
			}
			got, err := read(t.Context(), r, img, off, n)
			if err != nil {
				t.Fatalf("Open(%d, %d): %v", off, n, err)
			}
			sameBytes(t, "range", got, oracle(big.Content, off, n))
		}
	}},
	{name: "Open/past-end", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		want := r.seed.Images[0]
		img, size := stat(t.Context(), t, r, want.Ref), int64(len(want.Content))
		for _, at := range []struct{ off, n int64 }{{size - 10, 100}, {size, 10}, {size, -1}, {size + 100, 10}, {size + 100, -1}} {
			got, err := read(t.Context(), r, img, at.off, at.n)
			if err != nil {
				t.Errorf("Open(%d, %d) of %d bytes: %v", at.off, at.n, size, err)
			}
			sameBytes(t, "past the end", got, oracle(want.Content, at.off, at.n))
		}
	}},
	{name: "Open/zero", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		if got, err := read(t.Context(), r, img, 5, 0); err != nil || len(got) != 0 {
			t.Errorf("Open(5, 0) = %d bytes, %v", len(got), err)
		}
	}},
	{name: "Open/concurrent", run: func(t *testing.T, s *suite) {
		big := sized("big/image:1", 200_000)
		r := s.open(t, big)
		img := stat(t.Context(), t, r, big.Ref)
		g, ctx := errgroup.WithContext(t.Context())
		for i := range 24 {
			g.Go(func() error {
				off := int64(i * 8000)
				got, err := read(ctx, r.client, img, off, 16_000)
				if err == nil && !bytes.Equal(got, oracle(big.Content, off, 16_000)) {
					t.Errorf("wrong bytes at %d", off)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}},
	{name: "Open/close-early", run: func(t *testing.T, s *suite) {
		big := sized("big/image:1", 400_000)
		r := s.open(t, big)
		img := stat(t.Context(), t, r, big.Ref)
		for range 50 { // more often than a client has slots
			body, err := r.client.Open(t.Context(), img, 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
				t.Fatal(err)
			}
			if err := body.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}},
	{name: "Open/cancel", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := read(ctx, r.client, img, 0, -1); !errors.Is(err, context.Canceled) {
			t.Errorf("Open after cancel: %v", err)
		}
	}},
	{name: "Open/missing", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		img.Ref.Name = "none"
		// A service that keeps bytes by digest has them under any name.
		got, err := read(t.Context(), r, img, 0, -1)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Open of a missing name: %v", err)
		}
		if err == nil {
			sameBytes(t, "missing name, known version", got, r.seed.Images[0].Content)
		}
	}},
	{name: "Open/file", needs: backends.CanOpenFile, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, want := range r.seed.Images {
			f, err := r.client.OpenFile(t.Context(), stat(t.Context(), t, r, want.Ref))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			if err != nil {
				t.Error(err)
			}
			sameBytes(t, f.Name(), got, want.Content)
			f.Close()
		}
	}},
	{name: "Open/other-version", run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		img := stat(t.Context(), t, r, r.seed.Images[0].Ref)
		img.Version, img.Digest = "sha256:"+sha256Of([]byte("none"))[7:], sha256Of([]byte("none"))
		if got, err := read(t.Context(), r, img, 0, -1); err == nil {
			t.Errorf("Open of a version that is not there gave %d bytes", len(got))
		} else if !errors.Is(err, backends.ErrChanged) && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open of a version that is not there: %v, want ErrChanged or fs.ErrNotExist", err)
		}
	}},
}

// oracle is what Open must give.
func oracle(content []byte, off, n int64) []byte {
	size := int64(len(content))
	off = min(off, size)
	end := size
	if n >= 0 {
		end = min(off+n, size)
	}
	return content[off:end]
}
