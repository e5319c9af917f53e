// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sregfs/sregfs/backends"
)

var testTarget = Target{
	Remote:   "lab",
	Ref:      backends.Ref{Collection: "a/b", Name: "na\xffme\n", Tag: "1.0"},
	Replaces: "W/\"etag\"", Format: "sif",
}

func openSpool(t *testing.T, dir string, opts Options) *Spool {
	t.Helper()
	if opts.Reserve == 0 {
		opts.Reserve = -1
	}
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t *testing.T, s *Spool, content string) *Draft {
	t.Helper()
	d, err := s.Create(testTarget)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if _, err := d.WriteAt([]byte(content), 0); err != nil {
		t.Fatal(err)
	}
	return d
}

func seal(t *testing.T, d *Draft) Info {
	t.Helper()
	info, err := d.Seal(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func begin(d *Draft) error { _, err := d.Begin(); return err }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func TestDraft_lifecycle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openSpool(t, dir, Options{})
	d := create(t, s, "hello")
	if info := d.Info(); info.State != Writing || info.Size != 5 {
		t.Errorf("after a write: %+v", info)
	}
	mod := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := d.SetAttr(mod, 0o640); err != nil {
		t.Fatal(err)
	}
	info := seal(t, d)
	want := Info{ID: info.ID, Target: testTarget, State: Sealed, Size: 5,
		Digest: digestOf([]byte("hello")), ModTime: mod, Mode: 0o640}
	ignore := cmpopts.IgnoreFields(Info{}, "Created", "Changed")
	if diff := cmp.Diff(want, info, ignore); diff != "" {
		t.Errorf("sealed (-want +got):\n%s", diff)
	}

	// Another run finds the same.
	d.Close()
	s.Close()
	s = openSpool(t, dir, Options{})
	want.State, want.Error = Failed, "the program ended before it was published"
	if diff := cmp.Diff([]Info{want}, s.Drafts(), ignore); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	d, err := s.Draft(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	src, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(src.Content, 0, src.Size))
	if string(got) != "hello" || err != nil || src.Digest != want.Digest || src.Replaces != testTarget.Replaces ||
		!src.Modified.Equal(mod) || !src.Give || src.Format != "sif" {
		t.Errorf("source %+v with %q, %v", src, got, err)
	}
	moved := filepath.Join(t.TempDir(), "blob")
	if err := d.Publish("v", func(path string) error { return os.Rename(path, moved) }); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WriteAt([]byte("x"), 0); !errors.Is(err, ErrInUse) {
		t.Errorf("write after Publish: %v, want ErrInUse", err)
	}
	if b, err := os.ReadFile(moved); string(b) != "hello" {
		t.Errorf("published %q, %v", b, err)
	}
	assertGone(t, s, dir, info.ID)
}

func assertGone(t *testing.T, s *Spool, dir, id string) {
	t.Helper()
	if list := s.Drafts(); len(list) != 0 {
		t.Errorf("drafts left: %+v", list)
	}
	if _, err := s.Draft(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Draft: %v, want fs.ErrNotExist", err)
	}
	if err := s.Discard(id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Discard: %v, want fs.ErrNotExist", err)
	}
	if list, err := os.ReadDir(dir); len(list) != 0 || err != nil {
		t.Errorf("left on disk: %v, %v", list, err)
	}
}

// TestDraft_oracle writes at random and compares content, size and digest with
// a plain byte slice.
func TestDraft_oracle(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		s := openSpool(t, t.TempDir(), Options{})
		d := create(t, s, "")
		var want []byte
		grow := func(n int) { want = append(want, make([]byte, max(0, n-len(want)))...) }
		for range 200 {
			off := rnd.IntN(3000)
			switch op := rnd.IntN(10); {
			case op < 4: // in order, as cp does
				off = len(want)
				fallthrough
			case op < 7:
				p := make([]byte, 1+rnd.IntN(500))
				for i := range p {
					p[i] = byte(rnd.Uint32())
				}
				grow(off + len(p))
				copy(want[off:], p)
				if n, err := d.WriteAt(p, int64(off)); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
			case op == 7:
				grow(off)
				want = want[:off]
				if err := d.Truncate(int64(off)); err != nil {
					t.Fatal(err)
				}
			case op == 8:
				p := make([]byte, 700)
				n, err := d.ReadAt(p, int64(off))
				m, wantErr := bytes.NewReader(want).ReadAt(p, int64(off))
				if n != m || !errors.Is(err, wantErr) {
					t.Fatalf("ReadAt(%d) = %d, %v; want %d, %v", off, n, err, m, wantErr)
				}
			default:
				if info := seal(t, d); info.Digest != digestOf(want) || info.Size != int64(len(want)) {
					t.Fatalf("seed %d: sealed %s of %d bytes, want %s of %d", seed, info.Digest, info.Size, digestOf(want), len(want))
				}
			}
		}
		if info := seal(t, d); info.Digest != digestOf(want) {
			t.Fatalf("seed %d: sealed %s, want %s", seed, info.Digest, digestOf(want))
		}
		s.Close()
	}
}

func TestDraft_allocate(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "abc")
	if err := d.Allocate(0, 4096, KeepSize); errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	} else if err != nil || d.Size() != 3 {
		t.Errorf("keepSize: size %d, %v", d.Size(), err)
	}
	if err := d.Allocate(0, 4096, Grow); err != nil || d.Size() != 4096 {
		t.Errorf("size %d, %v", d.Size(), err)
	}
	if info := seal(t, d); info.Digest != digestOf(append([]byte("abc"), make([]byte, 4093)...)) {
		t.Errorf("digest %s", info.Digest)
	}
}

func TestDraft_rejected(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openSpool(t, dir, Options{})
	d := create(t, s, "half")
	bad := errors.New("half an image")
	info, err := d.Seal(t.Context(), func(r io.ReaderAt, size int64) (string, error) {
		if b, err := io.ReadAll(io.NewSectionReader(r, 0, size+9)); string(b) != "half" || err != nil {
			t.Errorf("complete sees %q, %v", b, err)
		}
		return "", bad
	})
	if !errors.Is(err, bad) || info.State != Incomplete || info.Error != bad.Error() {
		t.Errorf("Seal = %+v, %v", info, err)
	}
	if _, err := d.Begin(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Begin: %v, want fs.ErrInvalid", err)
	}
	if err := d.End(nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("End: %v, want fs.ErrInvalid", err)
	}
	if err := d.Publish("", nil); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Publish: %v, want fs.ErrInvalid", err)
	}
	// The rest arrives.
	if _, err := d.WriteAt([]byte(" whole"), 4); err != nil {
		t.Fatal(err)
	}
	if info := seal(t, d); info.Digest != digestOf([]byte("half whole")) || info.Error != "" {
		t.Errorf("sealed %+v", info)
	}
}

func TestDraft_sealIsCancelled(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "")
	if err := d.Truncate(64 << 20); err != nil { // sparse: nothing was hashed on the way
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := d.Seal(ctx, func(io.ReaderAt, int64) (string, error) { cancel(); return "sif", nil })
	if !errors.Is(err, context.Canceled) || d.Info().State != Writing {
		t.Errorf("Seal: %v, state %s", err, d.Info().State)
	}
}

func TestDraft_writtenWhileSealed(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "one")
	_, err := d.Seal(t.Context(), func(io.ReaderAt, int64) (string, error) {
		_, err := d.WriteAt([]byte("two"), 0)
		return "sif", err
	})
	if !errors.Is(err, ErrInUse) || d.Info().State != Writing {
		t.Errorf("Seal: %v, state %s", err, d.Info().State)
	}
	if info := seal(t, d); info.Digest != digestOf([]byte("two")) {
		t.Errorf("sealed %+v", info)
	}
}

func TestDraft_unsealsBeforeItWrites(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := create(t, openSpool(t, dir, Options{}), "one")
	info := seal(t, d)
	if err := d.Truncate(3); err != nil || d.Info().State != Sealed {
		t.Errorf("Truncate to the same size: %v, state %s", err, d.Info().State)
	}
	if _, err := d.WriteAt([]byte("x"), 1); err != nil {
		t.Fatal(err)
	}
	rec, err := folder(filepath.Join(dir, info.ID)).read(info.ID)
	if err != nil || rec.State != Writing || rec.Digest != "" {
		t.Errorf("journal %+v, %v", rec, err)
	}
}

func TestDraft_lent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := create(t, openSpool(t, dir, Options{}), "bytes")
	seal(t, d)
	src, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	busy := func(when string) {
		t.Helper()
		_, err := d.WriteAt([]byte("x"), 0)
		if !errors.Is(err, ErrInUse) || !errors.Is(d.Truncate(0), ErrInUse) || !errors.Is(d.Retarget(Target{}), ErrInUse) {
			t.Errorf("%s: write gives %v, want ErrInUse", when, err)
		}
	}
	busy("while publishing")
	if err := src.MayCommit(); err != nil {
		t.Fatal(err)
	}
	busy("once committed")
	link := filepath.Join(dir, "published")
	if err := os.Link(src.Path, link); err != nil {
		t.Skip(err)
	}
	if err := d.End(errors.New("disk on fire")); err != nil {
		t.Fatal(err)
	}
	if info := d.Info(); info.State != Failed || info.Error != "disk on fire" || info.Attempts != 1 {
		t.Errorf("failed: %+v", info)
	}
	busyWrite := func() error { _, err := d.WriteAt([]byte("x"), 0); return err }
	if err := busyWrite(); !errors.Is(err, ErrInUse) {
		t.Errorf("write to linked data: %v, want ErrInUse", err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := busyWrite(); err != nil || d.Info().State != Writing {
		t.Errorf("write after failure: %v, %s", err, d.Info().State)
	}
}

func TestDraft_session(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openSpool(t, dir, Options{})
	d := create(t, s, "bytes")
	seal(t, d)
	src, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	src.Progress(3)
	if got := src.Session.Load(); got != nil {
		t.Errorf("fresh session %q", got)
	}
	if err := src.Session.Save([]byte("\x00offset 3")); err != nil {
		t.Fatal(err)
	}
	if err := src.Session.Save(make([]byte, maxSession+1)); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("huge session: %v, want fs.ErrInvalid", err)
	}
	id := d.Info().ID

	s = openSpool(t, dir, Options{}) // as if the first had been killed
	d, err = s.Draft(id)
	if err != nil {
		t.Fatal(err)
	}
	if src, err = d.Begin(); err != nil {
		t.Fatal(err)
	}
	if got := src.Session.Load(); string(got) != "\x00offset 3" || d.Info().Stored != 3 {
		t.Errorf("session %q, stored %d", got, d.Info().Stored)
	}
	if err := d.End(io.ErrUnexpectedEOF); err != nil {
		t.Fatal(err)
	}
	elsewhere := testTarget
	elsewhere.Remote = "other"
	if err := d.Retarget(elsewhere); err != nil {
		t.Fatal(err)
	}
	if got := src.Session.Load(); got != nil || d.Info().Target != elsewhere {
		t.Errorf("session %q went along to %+v", got, d.Info().Target)
	}
}

func TestDraft_handles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openSpool(t, dir, Options{})
	a := create(t, s, "shared")
	id := a.Info().ID
	b, err := s.Draft(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrClosed) {
		t.Errorf("read of a closed handle: %v, want ErrClosed", err)
	}
	if err := s.Discard(id); !errors.Is(err, ErrInUse) {
		t.Errorf("Discard of an open draft: %v, want ErrInUse", err)
	}
	got := make([]byte, 6)
	if _, err := b.ReadAt(got, 0); err != nil || string(got) != "shared" || b.Info().State != Writing {
		t.Errorf("second handle reads %q, %v in state %s", got, err, b.Info().State)
	}
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	if got := s.Drafts(); len(got) != 1 || got[0].State != Incomplete {
		t.Errorf("after the last Close: %+v", got)
	}
	if err := s.Discard(id); err != nil {
		t.Fatal(err)
	}
	assertGone(t, s, dir, id)
}

func TestDraft_removedWhileOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openSpool(t, dir, Options{})
	d := create(t, s, "unlinked")
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	assertGone(t, s, dir, d.Info().ID)
	if _, err := d.WriteAt([]byte("!"), 8); err != nil {
		t.Errorf("write to a removed draft: %v", err)
	}
	got := make([]byte, 9)
	if _, err := d.ReadAt(got, 0); err != nil || string(got) != "unlinked!" {
		t.Errorf("read of a removed draft: %q, %v", got, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestDraft_publishFails(t *testing.T) {
	t.Parallel()
	s := openSpool(t, t.TempDir(), Options{})
	d := create(t, s, "kept")
	seal(t, d)
	bad := errors.New("no room in the cache")
	if err := d.Publish("", func(string) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("Publish: %v, want %v", err, bad)
	}
	if err := d.Publish("", nil); err != nil || len(s.Drafts()) != 0 {
		t.Errorf("second Publish: %v, left %+v", err, s.Drafts())
	}
	if err := d.Publish("", nil); !errors.Is(err, ErrInUse) {
		t.Errorf("third Publish: %v, want ErrInUse", err)
	}
}

func TestDraft_badArguments(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "x")
	_, read := d.ReadAt(make([]byte, 1), -1)
	_, write := d.WriteAt([]byte("x"), -1)
	for name, err := range map[string]error{"read": read, "write": write,
		"truncate": d.Truncate(-1), "allocate": d.Allocate(0, 0, Grow)} {
		if !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v, want fs.ErrInvalid", name, err)
		}
	}
	if err := d.SetAttr(time.Unix(1<<60, 0), 0o777); err != nil {
		t.Errorf("SetAttr with a strange time: %v", err)
	}
}

func TestSpool_closed(t *testing.T) {
	t.Parallel()
	s := openSpool(t, t.TempDir(), Options{})
	d := create(t, s, "x")
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	_, write := d.WriteAt([]byte("x"), 0)
	_, sealed := d.Seal(t.Context(), nil)
	_, created := s.Create(testTarget)
	_, again := s.Draft(d.Info().ID)
	for name, err := range map[string]error{"write": write, "seal": sealed, "create": created, "draft": again} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// A timer drops what was cut and nothing else, and says so; of what it leaves it
// warns once.
func TestSpool_sweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		whole := func(r io.ReaderAt, size int64) bool {
			b := make([]byte, size)
			_, err := r.ReadAt(b, 0)
			return err == nil && string(b) == "whole"
		}
		s := openSpool(t, dir, Options{Whole: whole, Log: slog.New(slog.NewTextHandler(&log, nil))})
		drafts := map[string]*Draft{}
		for _, name := range []string{"old", "open", "sealed", "whole", "named", "part", "idle", "held"} {
			drafts[name] = create(t, s, name)
		}
		seal(t, drafts["sealed"])
		target := Target{Remote: "r", File: "c/.x"}
		for name, broken := range map[string]error{"named": nil, "part": io.ErrUnexpectedEOF, "idle": io.ErrUnexpectedEOF, "held": io.ErrUnexpectedEOF} {
			d := drafts[name]
			if err := errors.Join(d.Retarget(target), d.Keep(broken)); err != nil {
				t.Fatal(err)
			}
			d.Idle()
		}
		if err := drafts["held"].Hold(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"old", "sealed", "whole", "named", "part"} {
			drafts[name].Close()
		}
		time.Sleep(defaultKeepBad - time.Second)
		if n := s.Sweep(); n != 0 {
			t.Errorf("swept %d too early", n)
		}
		fresh := create(t, s, "fresh")
		fresh.Close()
		drafts["fresh"] = fresh
		time.Sleep(2 * time.Second)
		if n := s.Sweep() + s.Sweep(); n != 3 {
			t.Errorf("swept %d, want 3", n)
		}
		left := map[string]State{}
		for _, info := range s.Drafts() {
			for name, d := range drafts {
				if d.Info().ID == info.ID {
					left[name] = info.State
				}
			}
		}
		want := map[string]State{"open": Writing, "sealed": Sealed, "whole": Kept, "named": Kept, "held": Incomplete, "fresh": Incomplete}
		if diff := cmp.Diff(want, left); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		if err := drafts["idle"].Hold(); !errors.Is(err, fs.ErrNotExist) || !drafts["idle"].Gone() {
			t.Errorf("Hold of what was dropped: %v, want fs.ErrNotExist", err)
		}
		text := log.String()
		if strings.Count(text, "level=WARN msg=\"dropped") != 3 || strings.Count(text, "level=WARN msg=\"a file is kept") != 2 {
			t.Errorf("the log says:\n%s", text)
		}
	})
}

// TestSpool_concurrent is for the race detector: everything at once on few drafts.
func TestSpool_concurrent(t *testing.T) {
	t.Parallel()
	s := openSpool(t, t.TempDir(), Options{})
	var ids []string
	for range 3 {
		ids = append(ids, create(t, s, "start").Info().ID)
	}
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(g, 2))
			for range 60 {
				d, err := s.Draft(ids[rnd.IntN(len(ids))])
				if err != nil {
					t.Error(err)
					return
				}
				hammer(t, d, rnd)
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		d, err := s.Draft(id)
		if err != nil {
			t.Fatal(err)
		}
		info := seal(t, d)
		b := make([]byte, info.Size)
		if _, err := d.ReadAt(b, 0); err != nil || digestOf(b) != info.Digest {
			t.Errorf("content does not match the digest: %v", err)
		}
	}
}

func hammer(t *testing.T, d *Draft, rnd *rand.Rand) {
	var err error
	switch rnd.IntN(6) {
	case 0, 1:
		_, err = d.WriteAt(fmt.Append(nil, rnd.Uint64()), d.Size()-rnd.Int64N(d.Size()+1))
	case 2:
		_, err = d.Seal(t.Context(), nil)
	case 3:
		if _, err = d.Begin(); err == nil {
			err = d.End(io.ErrUnexpectedEOF)
		}
	case 4:
		_, err = d.ReadAt(make([]byte, 100), 3)
		if errors.Is(err, io.EOF) {
			err = nil
		}
	default:
		err = errors.Join(d.SetAttr(time.Now(), 0o600), d.Truncate(7))
	}
	if err != nil && !errors.Is(err, ErrInUse) && !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
}

func TestDraft_modTime(t *testing.T) {
	t.Parallel()
	d := create(t, openSpool(t, t.TempDir(), Options{}), "x")
	written := seal(t, d).ModTime
	if err := errors.Join(begin(d), d.End(io.ErrUnexpectedEOF)); err != nil {
		t.Fatal(err)
	}
	if got := d.Info().ModTime; !got.Equal(written) {
		t.Errorf("modified %v, then by a try to publish %v", written, got)
	}
	set := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	if err := d.SetAttr(set, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.SetAttr(time.Time{}, 0o755); err != nil || !d.Info().ModTime.Equal(set) {
		t.Errorf("chmod: %v, modified %v, want %v", err, d.Info().ModTime, set)
	}
	if _, err := d.WriteAt([]byte("y"), 0); err != nil || !d.Info().ModTime.After(written) {
		t.Errorf("write: %v, modified %v", err, d.Info().ModTime)
	}
}

// BenchmarkDraft_copy copies a file in from front to back and seals it, as cp
// does through the mount.
func BenchmarkDraft_copy(b *testing.B) {
	s, err := Open(b.TempDir(), Options{Reserve: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	block := bytes.Repeat([]byte("block of bytes; "), 64<<10)
	const size = 64 << 20
	b.SetBytes(size)
	for b.Loop() {
		d, err := s.Create(testTarget)
		if err != nil {
			b.Fatal(err)
		}
		for off := int64(0); off < size; off += int64(len(block)) {
			if _, err := d.WriteAt(block, off); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := d.Seal(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
		if err := errors.Join(d.Remove(), d.Close()); err != nil {
			b.Fatal(err)
		}
	}
}

func TestDiskError(t *testing.T) {
	t.Parallel()
	_, missing := os.Open(filepath.Join(t.TempDir(), "none"))
	if err := diskError("open", missing); errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v reads as \"no such image\"", err)
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if err := diskError("write", &fs.PathError{Op: "write", Err: errno}); !errors.Is(err, errno) {
			t.Errorf("%v lost its errno", err)
		}
	}
}

// Times and modes are set by the thousand (tar, rsync, touch): they cost no write of
// the journal each, and are in it once the file is closed or synced.
func TestSetAttr_journal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(2001, 2, 3, 4, 5, 6, 7, time.UTC)
	ends := map[string]func(d *Draft) error{
		"sync": (*Draft).Sync, "keep": func(d *Draft) error { return d.Keep(nil) }, "close": (*Draft).Close,
		"idle":        func(d *Draft) error { d.Idle(); return nil },
		"spool close": func(*Draft) error { return nil },
	}
	ids := make(map[string]string)
	for name, end := range ends {
		d, err := s.Create(Target{Remote: "web", File: ".x"})
		if err != nil {
			t.Fatal(err)
		}
		ids[d.Info().ID] = name
		held := filepath.Join(t.TempDir(), "journal") // so that no other file gets its inode
		if err := os.Link(d.entry.dir.meta(), held); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(held)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			if err := d.SetAttr(when.Add(time.Duration(i-99)*time.Second), 0o640); err != nil {
				t.Fatal(err)
			}
		}
		if info := d.Info(); !info.ModTime.Equal(when) || info.Mode != 0o640 {
			t.Errorf("%s: %v, %o", name, info.ModTime, info.Mode)
		}
		after, err := os.Stat(d.entry.dir.meta())
		if err != nil || !os.SameFile(before, after) {
			t.Errorf("%s: the journal was written (%v)", name, err)
		}
		if err := end(d); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, info := range s.Drafts() {
		if !info.ModTime.Equal(when) || info.Mode != 0o640 {
			t.Errorf("%s: after a restart %v, %o", ids[info.ID], info.ModTime, info.Mode)
		}
	}
}
