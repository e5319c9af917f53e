// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/uploads"
)

// draft copies content into a draft for ref.
func draft(t testing.TB, b *bench, ref string, content []byte) *spool.Draft {
	t.Helper()
	d, err := b.Create(context.Background(), uploads.Destination{Remote: "lab", Ref: mustRef(t, ref), Format: "simg"})
	if err != nil {
		t.Fatalf("Create(%s): %v", ref, err)
	}
	if _, err := d.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	return d
}

func publish(t testing.TB, b *bench, ref string, content []byte) {
	t.Helper()
	d := draft(t, b, ref, content)
	defer d.Close()
	if err := b.Publish(context.Background(), d); err != nil {
		t.Fatalf("Publish(%s): %v", ref, err)
	}
}

// drafts returns the states of all drafts.
func drafts(t testing.TB, b *bench) []spool.State {
	t.Helper()
	st, err := b.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var states []spool.State
	for _, d := range st.Uploads {
		states = append(states, d.State)
	}
	return states
}

func read(t testing.TB, b *bench, img backends.Image) []byte {
	t.Helper()
	blob, err := b.Blob(context.Background(), "lab", img)
	if err != nil {
		t.Fatal(err)
	}
	defer blob.Close()
	content := make([]byte, blob.Size())
	if _, err := blob.ReadAt(content, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return content
}

func TestPublish(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/other:1", []byte("1"))
	b := newBench(t, svc)
	b.names("c")
	b.took()
	content := tiny(t, "one")
	publish(t, b, "c/sub/x:1", content)
	wantDiff(t, "events", b.took(), []string{"changed c/sub/x:1", "listing ", "listing c", "listing c/sub"})
	wantDiff(t, "c", b.names("c"), []string{"c/sub/", "other:1"})
	wantDiff(t, "drafts", drafts(t, b), []spool.State(nil))
	asked := svc.count("stat")
	img := b.mustLookup("c/sub/x:1")
	if img.Digest != digest(content) || svc.count("stat") != asked {
		t.Errorf("lookup after publishing: %+v", img)
	}
	if !bytes.Equal(read(t, b, img), content) || svc.count("open") != 0 {
		t.Errorf("the pushed file is not the warm cache entry: fetched %d times", svc.count("open"))
	}
	rec, err := b.Get(t.Context(), "lab://c/sub/x:1")
	if err != nil || rec.State != cache.Cached || rec.Path == "" {
		t.Errorf("Get = %+v, %v", rec, err)
	}
}

func TestPublish_sameAgain(t *testing.T) {
	t.Parallel()
	svc := newService()
	b := newBench(t, svc)
	content := tiny(t, "")
	d := draft(t, b, "c/x:1", content)
	defer d.Close()
	svc.put("c/x:1", content) // somebody else was faster, or our answer was lost
	if err := b.Publish(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if n := svc.count("push"); n != 0 {
		t.Errorf("sent %d times what was there", n)
	}
	wantDiff(t, "drafts", drafts(t, b), []spool.State(nil))
}

func TestPublish_lostAnswer(t *testing.T) {
	t.Parallel()
	svc := newService()
	b := newBench(t, svc)
	d := draft(t, b, "c/x:1", tiny(t, ""))
	defer d.Close()
	// The push arrives, its answer does not; a retry within Client then finds the tag taken.
	svc.set(func() {
		svc.slow = func(kind string) {
			if kind == "push" {
				svc.put("c/x:1", tiny(t, ""))
			}
		}
	})
	if err := b.Publish(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func TestPublish_refused(t *testing.T) {
	t.Parallel()
	svc := newService()
	old := svc.put("c/x:1", tiny(t, "old"))
	for _, tc := range []struct {
		name   string
		policy catalog.Policy
		ref    string
		excl   bool
		want   error
	}{
		{"taken", catalog.Policy{}, "c/x:1", false, nil},
		{"taken, exclusive", catalog.Policy{Overwrite: true}, "c/x:1", true, fs.ErrExist},
		{"read-only", catalog.Policy{ReadOnly: true, Overwrite: true}, "c/y:1", false, backends.ErrReadOnly},
		{"a version", catalog.Policy{}, "c/y:1@sha256:00", false, fs.ErrInvalid},
		{"free", catalog.Policy{}, "c/y:1", true, nil},
		{"may be replaced", catalog.Policy{Overwrite: true}, "c/x:1", false, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, svc, func(b *bench) { b.policy = tc.policy })
			target, err := b.Target(t.Context(), uploads.Destination{Remote: "lab", Ref: mustRef(t, tc.ref), Format: "sif", Exclusive: tc.excl})
			wantErr(t, "Target", err, tc.want)
			replaces := map[string]string{"taken": spool.OnlySame, "may be replaced": old.Version}[tc.name]
			if err == nil && target.Replaces != replaces {
				t.Errorf("replaces %q, want %q", target.Replaces, replaces)
			}
			if n := svc.count("push"); n != 0 {
				t.Errorf("something was sent")
			}
		})
	}
}

// An image that may not be replaced takes the bytes that it has, and no others.
func TestPublish_onlySame(t *testing.T) {
	t.Parallel()
	for _, async := range []bool{false, true} {
		svc := newService()
		svc.put("c/x:1", tiny(t, "old"))
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: async} })
		same := draft(t, b, "c/x:1", tiny(t, "old"))
		defer same.Close()
		if err := b.Publish(t.Context(), same); err != nil {
			t.Errorf("the same bytes: %v", err)
		}
		// What the same open file writes afterwards replaces nothing either.
		next, err := same.Fork(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer next.Close()
		if got := next.Info().Target.Replaces; got != spool.OnlySame {
			t.Errorf("the fork replaces %q", got)
		}
		other := draft(t, b, "c/x:1", tiny(t, "other"))
		defer other.Close()
		wantErr(t, "Publish of others", b.Publish(t.Context(), other), backends.ErrNotAllowed)
		if n := svc.count("push"); n != 0 {
			t.Errorf("the registry got %d pushes", n)
		}
	}
}

func TestPublish_changedMeanwhile(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", tiny(t, "old"))
	b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Overwrite: true} })
	d := draft(t, b, "c/x:1", tiny(t, "mine"))
	defer d.Close()
	theirs := svc.put("c/x:1", tiny(t, "theirs"))
	wantErr(t, "Publish", b.Publish(t.Context(), d), backends.ErrChanged)
	wantDiff(t, "drafts", drafts(t, b), []spool.State{spool.Failed})
	if got := svc.images[mustRef(t, "c/x:1")].Image.Version; got != theirs.Version {
		t.Errorf("the other's image was replaced")
	}
}

func TestPublish_incomplete(t *testing.T) {
	t.Parallel()
	svc := newService()
	b := newBench(t, svc)
	d := draft(t, b, "c/x:1", tiny(t, "")[:200])
	wantErr(t, "Publish", b.Publish(t.Context(), d), backends.ErrCorrupt)
	d.Close()
	wantDiff(t, "drafts", drafts(t, b), []spool.State{spool.Incomplete})
	if n := svc.count("push"); n != 0 {
		t.Errorf("half an image was sent")
	}
}

func TestPublish_failureKeepsDraft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc)
		content := tiny(t, "")
		d := draft(t, b, "c/x:1", content)
		svc.set(func() { svc.down = true })
		wantErr(t, "Publish", b.Publish(t.Context(), d), backends.ErrUnavailable)
		d.Close()
		wantDiff(t, "drafts", drafts(t, b), []spool.State{spool.Failed})
		b.restart()
		wantDiff(t, "drafts after a restart", drafts(t, b), []spool.State{spool.Failed})
		svc.set(func() { svc.down = false })
		st, err := b.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var progress []int64
		if err := b.Retry(t.Context(), st.Uploads[0].ID, func(done, total int64) { progress = append(progress, done, total) }); err != nil {
			t.Fatalf("Retry: %v", err)
		}
		wantDiff(t, "progress", progress, []int64{int64(len(content)), int64(len(content))})
		wantDiff(t, "drafts", drafts(t, b), []spool.State(nil))
		wantErr(t, "Retry again", b.Retry(t.Context(), st.Uploads[0].ID, nil), fs.ErrNotExist)
		wantErr(t, "Discard", b.Discard(t.Context(), st.Uploads[0].ID), fs.ErrNotExist)
	})
}

func TestPublish_storedOtherBytes(t *testing.T) {
	t.Parallel()
	for name, lie := range map[string]func(backends.Image) backends.Image{
		"digest": func(img backends.Image) backends.Image { img.Digest = digest(nil); return img },
		"size":   func(img backends.Image) backends.Image { img.Size++; return img },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			svc := newService()
			svc.lie = lie
			b := newBench(t, svc)
			d := draft(t, b, "c/x:1", tiny(t, ""))
			defer d.Close()
			wantErr(t, "Publish", b.Publish(t.Context(), d), backends.ErrCorrupt)
			wantDiff(t, "drafts", drafts(t, b), []spool.State{spool.Failed})
		})
	}
}

func TestPublish_interrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc)
		d := draft(t, b, "c/x:1", tiny(t, ""))
		svc.set(func() { svc.slow = func(string) { time.Sleep(time.Second) } })
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		wantErr(t, "Publish", b.Publish(ctx, d), context.DeadlineExceeded)
		wantDiff(t, "drafts", drafts(t, b), []spool.State{spool.Sealed})
		// Who waits with somebody else does not take the push away.
		impatient, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		done := make(chan error, 2)
		go func() { done <- b.Publish(t.Context(), d) }()
		synctest.Wait()
		go func() { done <- b.Publish(impatient, d) }()
		wantErr(t, "impatient", <-done, context.DeadlineExceeded)
		if err := <-done; err != nil {
			t.Errorf("Publish: %v", err)
		}
		if n := svc.count("push"); n != 2 {
			t.Errorf("sent %d times, want 2 (one broken off)", n)
		}
		d.Close()
	})
}

func TestPublish_async(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true, Overwrite: true} })
		svc.set(func() { svc.down = true })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Nothing can be asked: the copy is taken in all the same.
		for _, seed := range []string{"first", "second"} {
			d := draft(t, b, "c/x:1", tiny(t, seed))
			if err := b.Publish(t.Context(), d); err != nil {
				t.Fatalf("Publish: %v", err)
			}
			d.Close()
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		if n := len(drafts(t, b)); n != 2 {
			t.Fatalf("%d drafts are kept, want 2", n)
		}

		// Another process finds them, and brings both to the registry in order.
		b.restart()
		svc.set(func() { svc.down = false })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		wantDiff(t, "drafts", drafts(t, b), []spool.State(nil))
		if got := svc.images[mustRef(t, "c/x:1")].Content; !bytes.Equal(got, tiny(t, "second")) {
			t.Errorf("the registry has %q", got[4096:])
		}
	})
}

// A service that stores other bytes each time is not sent the image for ever; one that
// answers oddly may be a network to sign in to.
func TestPublish_asyncStoredWrongly(t *testing.T) {
	for status, want := range map[int]struct {
		pushes int // at most
		state  spool.State
		async  bool
	}{
		http.StatusUnprocessableEntity: {4, spool.Failed, false},
		http.StatusBadRequest:          {1 << 20, spool.Failed, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			svc := newService()
			b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true} })
			svc.set(func() {
				svc.fault = func(kind string) int {
					if kind == "push" {
						return status
					}
					return 0
				}
			})
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			d := draft(t, b, "c/x:1", tiny(t, ""))
			if err := b.Publish(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			d.Close()
			time.Sleep(24 * time.Hour)
			pushes := svc.count("push")
			if pushes > want.pushes || pushes < min(want.pushes, 100) {
				t.Errorf("HTTP %d: sent %d times in a day", status, pushes)
			}
			st, err := b.Status(t.Context())
			if err != nil || len(st.Uploads) != 1 {
				t.Fatalf("HTTP %d: %+v, %v", status, st.Uploads, err)
			}
			u := st.Uploads[0]
			if u.State != want.state || u.Target.Async != want.async || u.Error == "" {
				t.Errorf("HTTP %d: an upload %s, in the background %v, because %q", status, u.State, u.Target.Async, u.Error)
			}
			svc.set(func() { svc.fault = nil })
			if !want.async {
				err = b.Retry(t.Context(), u.ID, nil)
			}
			time.Sleep(time.Hour)
			if left := drafts(t, b); err != nil || len(left) != 0 {
				t.Errorf("HTTP %d: afterwards %v, %v", status, left, err)
			}
		})
	}
}

func TestClose_drains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true} })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		svc.set(func() { svc.slow = func(string) { time.Sleep(10 * time.Second) } })
		for _, ref := range []string{"c/x:1", "c/x:2", "c/x:3", "c/x:4", "c/x:5"} {
			d := draft(t, b, ref, tiny(t, ref))
			if err := b.Publish(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			d.Close()
		}
		b.close()
		if n := len(svc.images); n != 5 {
			t.Errorf("%d images were published before the end, want 5", n)
		}
		b.open()
	})
}

func TestClose_hurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		b := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{Async: true} })
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		d := draft(t, b, "c/x:1", tiny(t, ""))
		svc.set(func() { svc.slow = func(string) { time.Sleep(time.Minute) } })
		if err := b.Publish(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		d.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		b.Drain(ctx)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b.open()
		wantDiff(t, "drafts", drafts(t, b), []spool.State{spool.Sealed})
		if err := b.Publish(t.Context(), d); err == nil {
			t.Error("a handle of an earlier spool published")
		}
	})
}

func TestMkdir(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", tiny(t, ""))
	b := newBench(t, svc)
	ctx := t.Context()
	wantErr(t, "taken", b.Mkdir(ctx, "lab", "c"), fs.ErrExist)
	wantErr(t, "bad", b.Mkdir(ctx, "lab", "a/../b"), fs.ErrInvalid)
	wantErr(t, "registry's", b.Rmdir(ctx, "lab", "c"), cache.ErrInUse)
	wantErr(t, "missing", b.Rmdir(ctx, "lab", "nowhere"), fs.ErrNotExist)
	for _, dir := range []string{"new", "new/sub"} {
		if err := b.Mkdir(ctx, "lab", dir); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, "twice", b.Mkdir(ctx, "lab", "new"), fs.ErrExist)
	wantErr(t, "not empty", b.Rmdir(ctx, "lab", "new"), cache.ErrInUse)
	b.restart()
	wantDiff(t, "root", b.names(""), []string{"c/", "new/"})
	wantDiff(t, "new", b.names("new"), []string{"new/sub/"})
	wantDiff(t, "new/sub", b.names("new/sub"), []string(nil))
	d := draft(t, b, "new/sub/x:1", tiny(t, ""))
	wantErr(t, "in use", b.Rmdir(ctx, "lab", "new/sub"), cache.ErrInUse)
	if err := b.Publish(ctx, d); err != nil {
		t.Fatal(err)
	}
	d.Close()
	wantErr(t, "published into", b.Rmdir(ctx, "lab", "new/sub"), cache.ErrInUse)
	if _, err := b.Remove(ctx, "lab://new/sub/x:1", ""); err != nil {
		t.Fatal(err)
	}
	wantDiff(t, "new", b.names("new"), []string(nil))
	if err := b.Rmdir(ctx, "lab", "new"); err != nil {
		t.Errorf("Rmdir: %v", err)
	}
	wantDiff(t, "root", b.names(""), []string{"c/"})
}

func TestMkdir_readOnly(t *testing.T) {
	t.Parallel()
	b := newBench(t, newService(), func(b *bench) { b.policy = catalog.Policy{ReadOnly: true} })
	err := b.Mkdir(t.Context(), "lab", "new")
	wantErr(t, "Mkdir", err, backends.ErrReadOnly)
	if !strings.Contains(err.Error(), "lab://new") {
		t.Errorf("error %q does not name the collection", err)
	}
}
