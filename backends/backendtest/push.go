// SPDX-License-Identifier: Apache-2.0

package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
)

var pushTests = []subtest{
	{name: "Push/roundtrip", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		for _, spec := range []string{"library/alpine:new", "library/new:1", "fresh/new:1", "fresh/deep/er:2", "org/team/tool:latest"} {
			want := image(spec)
			if !r.pushable(want.Ref) {
				continue // Push/folded looks at those
			}
			img, err := r.client.Push(t.Context(), want.Ref, source(want.Content))
			if err != nil {
				t.Errorf("Push(%s): %v", spec, err)
				continue
			}
			if img.Ref != want.Ref {
				t.Errorf("Push(%s).Ref = %s", spec, img.Ref)
			}
			wantImage(t, r, want)
			if now := stat(t.Context(), t, r, want.Ref); now.Version != img.Version {
				t.Errorf("Push(%s) gave version %q, Stat gives %q", spec, img.Version, now.Version)
			}
		}
		for _, old := range r.seed.Images {
			wantImage(t, r, old)
		}
	}},
	{name: "Push/listed", needs: backends.CanPush | backends.CanList, run: func(t *testing.T, s *suite) {
		r := s.open(t)
		push(t, r, image("fresh/new:1"))
		wantNames(t, r, "", "fresh/")
		deep := image("fresh/deep/er:2")
		if !r.pushable(deep.Ref) {
			wantNames(t, r, "fresh", "fresh/new:1")
			return
		}
		push(t, r, deep)
		wantNames(t, r, "", "fresh/")
		wantNames(t, r, "fresh", "fresh/deep/", "fresh/new:1")
		wantNames(t, r, "fresh/deep", "fresh/deep/er:2")
	}},
	{name: "Push/exists", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		old := r.seed.Images[0]
		if _, err := r.client.Push(t.Context(), old.Ref, source(content("other", 900))); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Push over %s without Replaces: %v, want fs.ErrExist", old.Ref, err)
		}
		wantImage(t, r, old)
	}},
	{name: "Push/same", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		fresh := image("fresh/new:1")
		push(t, r, fresh)
		for _, img := range []SeedImage{r.seed.Images[0], fresh} {
			before := stat(t.Context(), t, r, img.Ref)
			other := stat(t.Context(), t, r, r.seed.Images[1].Ref).Version
			for _, replaces := range []string{"", other} {
				src := source(img.Content)
				src.Replaces = replaces
				if now, err := r.client.Push(t.Context(), img.Ref, src); err != nil || now.Version != before.Version {
					t.Errorf("Push(%s) of the bytes that it has, in place of %q: version %q, %v, want %q", img.Ref, replaces, now.Version, err, before.Version)
				}
				wantImage(t, r, img)
			}
			if _, err := r.client.Push(t.Context(), img.Ref, source(content("other", len(img.Content)))); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Push(%s) of as many other bytes: %v, want fs.ErrExist", img.Ref, err)
			}
			wantImage(t, r, img)
		}
	}},
	{name: "Push/facts", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t)
		img := image("fresh/new:1")
		src := source(append([]byte("hsqs"), img.Content...)) // a squashfs by its beginning
		src.Format = backends.FormatSIMG
		stored, err := r.client.Push(t.Context(), img.Ref, src)
		if errors.Is(err, fs.ErrInvalid) {
			return // only SIFs are kept there
		}
		if err != nil {
			t.Fatal(err)
		}
		for what, now := range map[string]backends.Image{"Push": stored, "Stat": stat(t.Context(), t, r, img.Ref)} {
			if keeps := now.Format == src.Format; keeps != s.KeepsFormat || !keeps && now.Format != "" {
				t.Errorf("%s of a %s tells the format %q, and KeepsFormat is %v", what, src.Format, now.Format, s.KeepsFormat)
			}
			if keeps := now.Modified.Unix() == src.Modified.Unix(); keeps != s.KeepsTime {
				t.Errorf("%s of a file of %v tells %v, and KeepsTime is %v", what, src.Modified, now.Modified, s.KeepsTime)
			}
		}
		if !s.KeepsTime {
			return
		}
		// Also that of one which replaces a newer one.
		src = source(content("other", 900))
		src.Modified, src.Replaces = src.Modified.AddDate(-3, 0, 0), stored.Version
		if _, err := r.client.Push(t.Context(), img.Ref, src); err != nil {
			t.Fatal(err)
		}
		if now := stat(t.Context(), t, r, img.Ref); now.Modified.Unix() != src.Modified.Unix() {
			t.Errorf("replaced by a file of %v, Stat tells %v", src.Modified, now.Modified)
		}
		img.Content = content("other", 900)
		wantImage(t, r, img)
	}},
	{name: "Push/replaces", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		old := r.seed.Images[0]
		src := source(content("other", 900))
		src.Replaces = stat(t.Context(), t, r, old.Ref).Version
		img, err := r.client.Push(t.Context(), old.Ref, src)
		if err != nil {
			t.Fatal(err)
		}
		if img.Version == src.Replaces {
			t.Error("other bytes have the old version")
		}
		old.Content = content("other", 900)
		wantImage(t, r, old)
		src = source(content("again", 900))
		src.Replaces = backends.ReplaceAny
		old.Content = content("again", 900)
		if _, err := r.client.Push(t.Context(), old.Ref, src); err != nil {
			t.Errorf("ReplaceAny: %v", err)
		}
		wantImage(t, r, old)
	}},
	{name: "Push/changed", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		old := r.seed.Images[0]
		src := source(content("other", 900))
		src.Replaces = stat(t.Context(), t, r, r.seed.Images[1].Ref).Version
		if _, err := r.client.Push(t.Context(), old.Ref, src); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Push with another version in Replaces: %v, want ErrChanged", err)
		}
		wantImage(t, r, old)
		none := image("library/none:1")
		if _, err := r.client.Push(t.Context(), none.Ref, src); !errors.Is(err, backends.ErrChanged) {
			t.Errorf("Push with Replaces where nothing is: %v, want ErrChanged", err)
		}
	}},
	{name: "Push/abort-keeps-old", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		old, fresh := r.seed.Images[0], image("fresh/new:1")
		for _, ref := range []backends.Ref{old.Ref, fresh.Ref} {
			src := source(content("other", 100_000))
			src.Content = &failing{ReaderAt: src.Content, from: 50_000}
			src.Replaces = backends.ReplaceAny
			if _, err := r.Push(t, ref, src); err == nil {
				t.Errorf("Push(%s) of what cannot be read succeeded", ref)
			}
		}
		wantImage(t, r, old)
		wantMissing(t, r, fresh.Ref)
	}},
	{name: "Push/commit", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		old, fresh := r.seed.Images[0], image("fresh/new:1")
		stopped := errors.New("stopped")
		for _, ref := range []backends.Ref{old.Ref, fresh.Ref} {
			src, asked := source(content("other", 5000)), 0
			src.Replaces = backends.ReplaceAny
			src.Commit = func() error { asked++; return stopped }
			if _, err := r.Push(t, ref, src); err == nil || asked != 1 {
				t.Errorf("Push(%s) whose Commit says no gave %v, and asked %d times", ref, err, asked)
			}
		}
		wantImage(t, r, old)
		wantMissing(t, r, fresh.Ref)
		src := source(fresh.Content)
		src.Commit = func() error {
			wantMissing(t, r, fresh.Ref)
			return nil
		}
		if _, err := r.client.Push(t.Context(), fresh.Ref, src); err != nil {
			t.Fatal(err)
		}
		wantImage(t, r, fresh)
	}},
	{name: "Push/wrong-digest", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t, typical()...)
		old, fresh := r.seed.Images[0], image("fresh/new:1")
		for _, ref := range []backends.Ref{old.Ref, fresh.Ref} {
			src := source(content("other", 5000))
			src.Digest, src.Replaces = sha256Of([]byte("something else")), backends.ReplaceAny
			if _, err := r.Push(t, ref, src); !errors.Is(err, backends.ErrCorrupt) {
				t.Errorf("Push(%s) of bytes with another digest: %v, want ErrCorrupt", ref, err)
			}
		}
		wantImage(t, r, old)
		wantMissing(t, r, fresh.Ref)
	}},
	{name: "Push/concurrent", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t)
		g, ctx := errgroup.WithContext(t.Context())
		for i := range 8 {
			g.Go(func() error {
				img := image(fmt.Sprintf("fresh/image%d:1", i%2))
				img.Ref.Tag = fmt.Sprint(i)
				_, err := r.client.Push(ctx, img.Ref, source(img.Content))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		for i := range 8 {
			img := image(fmt.Sprintf("fresh/image%d:1", i%2))
			img.Ref.Tag = fmt.Sprint(i)
			wantImage(t, r, img)
		}
	}},
	{name: "Push/race", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t)
		ref := image("fresh/new:1").Ref
		var stored atomic.Int64
		g, ctx := errgroup.WithContext(t.Context())
		for i := range 6 {
			g.Go(func() error {
				_, err := r.client.Push(ctx, ref, source(content(fmt.Sprint("racer", i), 3000)))
				if err == nil {
					stored.Add(1)
				} else if !errors.Is(err, fs.ErrExist) && !errors.Is(err, backends.ErrChanged) {
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		// Not every service can compare and swap, so more than one may have been
		// told that it won. What is there must be one of them, and whole.
		if stored.Load() == 0 {
			t.Error("nobody won")
		}
		got, err := read(t.Context(), r.client, stat(t.Context(), t, r, ref), 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			if bytes.Equal(got, content(fmt.Sprint("racer", i), 3000)) {
				return
			}
		}
		t.Errorf("%d bytes that nobody pushed", len(got))
	}},
	{name: "Push/progress", needs: backends.CanPush, run: func(t *testing.T, s *suite) {
		r := s.open(t)
		img := sized("fresh/new:1", 300_000)
		src, last := source(img.Content), int64(-1)
		src.Progress = func(stored int64) { last = stored }
		if _, err := r.client.Push(t.Context(), img.Ref, src); err != nil {
			t.Fatal(err)
		}
		if last != src.Size {
			t.Errorf("the last progress told was %d of %d", last, src.Size)
		}
	}},
	{name: "Push/again", needs: backends.CanPush | backends.CanDelete, run: func(t *testing.T, s *suite) {
		r := s.open(t)
		img := image("fresh/new:1")
		for range 3 {
			stored := push(t, r, img)
			wantImage(t, r, img)
			if err := r.client.Delete(t.Context(), stored); err != nil {
				t.Fatal(err)
			}
		}
	}},
}

// Push calls the backend itself: what fails here must not be tried again.
func (r *remote) Push(t *testing.T, ref backends.Ref, src backends.Source) (backends.Image, error) {
	t.Helper()
	pusher, ok := r.Backend.(backends.Pusher)
	if !ok {
		t.Fatal("the backend is no Pusher")
	}
	return pusher.Push(t.Context(), ref, src)
}

func source(text []byte) backends.Source {
	return backends.Source{
		Content: bytes.NewReader(text), Size: int64(len(text)), Digest: sha256Of(text), Format: "sif",
		Modified: time.Date(2023, 5, 6, 7, 8, 9, 0, time.UTC),
	}
}

func push(t *testing.T, r *remote, img SeedImage) backends.Image {
	t.Helper()
	stored, err := r.client.Push(t.Context(), img.Ref, source(img.Content))
	if err != nil {
		t.Fatalf("Push(%s): %v", img.Ref, err)
	}
	return stored
}

// wantImage checks that the name means exactly these bytes.
func wantImage(t *testing.T, r *remote, want SeedImage) {
	t.Helper()
	img, err := r.client.Stat(t.Context(), want.Ref)
	if err != nil {
		t.Errorf("Stat(%s): %v", want.Ref, err)
		return
	}
	checkFacts(t, img, want)
	got, err := read(t.Context(), r.client, img, 0, -1)
	if err != nil {
		t.Errorf("Open(%s): %v", want.Ref, err)
	}
	sameBytes(t, want.Ref.String(), got, want.Content)
}

func wantMissing(t *testing.T, r *remote, ref backends.Ref) {
	t.Helper()
	if img, err := r.client.Stat(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(%s) = %v, %v, want fs.ErrNotExist", ref, img, err)
	}
}

// failing is content on a disk that breaks.
type failing struct {
	io.ReaderAt
	from int64
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errors.New("the disk broke")
	}
	return f.ReaderAt.ReadAt(p, off)
}
