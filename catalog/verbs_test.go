// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// withLocal adds a remote local, whose images are files below the result.
func withLocal(t testing.TB) (root string, option func(*bench)) {
	t.Helper()
	root = t.TempDir()
	backend, err := dir.Open(t.Context(), backends.Env{Remote: "local", Config: map[string]any{"path": root}})
	if err != nil {
		t.Fatal(err)
	}
	return root, func(b *bench) {
		b.extra = append(b.extra, catalog.Remote{
			Name: "local", Type: "dir", Client: backends.NewClient("local", backend, backends.ClientOptions{}),
			Policy: catalog.Policy{Overwrite: true, Delete: true},
		})
	}
}

// file writes content to a new file.
func file(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "new.simg")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// found is uris of a search. What it could not ask is among them.
func found(t testing.TB, seq iter.Seq2[verbs.Hit, error]) ([]string, error) {
	t.Helper()
	var all []string
	for hit, err := range seq {
		if err != nil {
			return all, err
		}
		if hit.Failed != "" {
			hit.URI = "not " + hit.Remote
		}
		all = append(all, hit.URI)
	}
	return all, nil
}

func uris(t testing.TB, seq func(func(verbs.Record, error) bool)) ([]string, error) {
	t.Helper()
	var all []string
	for rec, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, rec.URI)
	}
	return all, nil
}

func TestResolve(t *testing.T) {
	t.Parallel()
	svc, other := newService(), newService()
	svc.put("library/here:1", []byte("1"))
	for _, name := range []string{"library/there:1", "library/both:1"} {
		other.put(name, []byte("1"))
	}
	b := newBench(t, svc, func(b *bench) {
		for _, name := range []string{"one", "two"} {
			b.extra = append(b.extra, catalog.Remote{Name: name, URL: "http://" + name + ".example.org:5000", Client: other.client(name)})
		}
	})
	ctx := t.Context()
	for _, name := range []string{"one", "two"} {
		if err := b.Refresh(ctx, name, "library"); err != nil {
			t.Fatal(err)
		}
		if name == "one" {
			other.drop("library/there:1")
		}
	}
	for _, tc := range []struct {
		uri     string
		purpose verbs.Purpose
		want    string // URI, or the beginning of the error
		err     error
	}{
		{"here:1", verbs.Reading, "lab://library/here:1", nil},
		{"there:1", verbs.Reading, "one://library/there:1", nil},
		{"there:1", verbs.Writing, "lab://library/there:1", nil},
		{"both:1", verbs.Reading, "library/both:1 is in several remotes: say which of one://library/both:1, two://library/both:1", fs.ErrInvalid},
		{"nowhere:1", verbs.Reading, "lab://library/nowhere:1", nil},
		{"two://a/b", verbs.Reading, "two://a/b:latest", nil},
		{"two.example.org/a/b:1", verbs.Writing, "two://a/b:1", nil},
		{"two.example.org:5000/a/b:1", verbs.Writing, "two://a/b:1", nil},
		{"lab.example.org/a/b:1", verbs.Writing, "lab://a/b:1", nil},
		{"quay.io/a/b:1", verbs.Writing, `no remote has the host "quay.io"`, fs.ErrNotExist},
		{"three://a/b", verbs.Writing, `no remote is named "three"`, fs.ErrNotExist},
		{"a/../b", verbs.Reading, "", fs.ErrInvalid},
	} {
		r, ref, err := b.Resolve(ctx, tc.uri, tc.purpose)
		if !errors.Is(err, tc.err) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Resolve(%q): error %v, want %v: %s", tc.uri, err, tc.err, tc.want)
		}
		if got := (backends.URI{Remote: r.Name, Ref: ref}).String(); err == nil && got != tc.want {
			t.Errorf("Resolve(%q) = %s, want %s", tc.uri, got, tc.want)
		}
	}
}

// Verbs about the files of this machine need no state: it may be locked by a
// running mount, and opening it takes time.
func TestLocal_needsNoState(t *testing.T) {
	t.Parallel()
	root, option := withLocal(t)
	b := newBench(t, newService(), option)
	b.Catalog.Close()
	c, err := catalog.New(catalog.Options{
		Remotes: b.extra,
		State:   func() (*catalog.State, error) { return nil, errors.New("locked") },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	v := verbs.New(c, uploads.New(c, nil), verbs.Options{})
	content := tiny(t, "")
	rec, err := v.Add(ctx, file(t, content), "vsoch/hello:1", verbs.AddOptions{}, nil)
	if err != nil {
		t.Fatalf("Add: %v", err)
	}
	if rec.URI != "local://vsoch/hello:1" || rec.Digest != digest(content) || !strings.HasPrefix(rec.Path, root) {
		t.Errorf("Add: %+v", rec)
	}
	for name, verb := range map[string]func() (verbs.Record, error){
		"Get":  func() (verbs.Record, error) { return v.Get(ctx, "vsoch/hello:1") },
		"Pull": func() (verbs.Record, error) { return v.Pull(ctx, "vsoch/hello:1", verbs.PullOptions{}, nil) },
		"Inspect": func() (verbs.Record, error) {
			in, err := v.Inspect(ctx, "vsoch/hello:1")
			if err == nil && in.Facts.Format != "simg" {
				err = fmt.Errorf("format %q", in.Facts.Format)
			}
			return in.Record, err
		},
	} {
		got, err := verb()
		if err != nil || got.Path != rec.Path || got.State != cache.Cached {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	got, err := uris(t, v.Images(ctx, verbs.ImagesOptions{Query: "HELLO", Refresh: true}))
	wantDiff(t, "Images", got, []string{"local://vsoch/hello:1"})
	if err != nil {
		t.Errorf("Images: %v", err)
	}
	// A file put there by hand appears at once.
	byHand := filepath.Join(root, "vsoch", "byhand")
	if err := os.MkdirAll(byHand, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(byHand, "2.simg"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Get(ctx, "vsoch/byhand:2"); err != nil {
		t.Errorf("Get: %v", err)
	}
	if _, err := v.Remove(ctx, "vsoch/hello:1", ""); err != nil {
		t.Errorf("Remove: %v", err)
	}
	_, err = c.Lookup(ctx, "local", mustRef(t, "vsoch/hello:1"))
	wantErr(t, "Lookup after Remove", err, fs.ErrNotExist)
}

func TestAdd(t *testing.T) {
	t.Parallel()
	_, option := withLocal(t)
	b := newBench(t, newService(), option)
	ctx := t.Context()
	one, two := tiny(t, "one"), tiny(t, "two")
	copied, moved := file(t, one), file(t, two)
	if _, err := b.Add(ctx, copied, "local://c/x:1", verbs.AddOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(copied); err != nil {
		t.Errorf("a copy took the file away: %v", err)
	}
	wantDiff(t, "events", b.took(), []string{"changed c/x:1", "listing c"})
	if _, err := b.Add(ctx, copied, "local://c/x:1", verbs.AddOptions{}, nil); err != nil {
		t.Errorf("the same bytes again: %v", err)
	}
	_, err := b.Add(ctx, moved, "local://c/x:1", verbs.AddOptions{Move: true}, nil)
	wantErr(t, "taken", err, fs.ErrExist)
	if err != nil && !strings.Contains(err.Error(), "--force") {
		t.Errorf("error %q has no remedy", err)
	}
	if _, err := os.Stat(moved); err != nil {
		t.Errorf("a refused move took the file away: %v", err)
	}
	rec, err := b.Add(ctx, moved, "local://c/x:1", verbs.AddOptions{Move: true, PushOptions: verbs.PushOptions{Force: true}}, nil)
	if err != nil || rec.Digest != digest(two) {
		t.Errorf("Add with force = %+v, %v", rec, err)
	}
	if _, err := os.Stat(moved); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a move left the file: %v", err)
	}
	if got, err := os.ReadFile(rec.Path); err != nil || digest(got) != digest(two) {
		t.Errorf("the stored file: %v", err)
	}
	// Moving an image to where it is must not delete it.
	if _, err := b.Add(ctx, rec.Path, "local://c/x:1", verbs.AddOptions{Move: true, PushOptions: verbs.PushOptions{Force: true}}, nil); err != nil {
		t.Errorf("moved onto itself: %v", err)
	}
	if _, err := os.Stat(rec.Path); err != nil {
		t.Errorf("moved onto itself: %v", err)
	}
}

func TestPush(t *testing.T) {
	t.Parallel()
	svc := newService()
	b := newBench(t, svc)
	ctx := t.Context()
	path := file(t, tiny(t, "one"))
	var last int64
	rec, err := b.Push(ctx, path, "c/x:1", verbs.PushOptions{}, func(done, _ int64) { last = done })
	if err != nil || rec.URI != "lab://c/x:1" || last != rec.Size {
		t.Errorf("Push = %+v, %v (progress %d)", rec, err, last)
	}
	asked := svc.count("stat")
	b.mustLookup("c/x:1")
	if svc.count("stat") != asked {
		t.Error("what was pushed had to be asked for")
	}
	wantDiff(t, "names", b.names("c"), []string{"x:1"})
	for what, tc := range map[string]struct {
		path, uri string
		want      error
	}{
		"taken":        {file(t, tiny(t, "two")), "c/x:1", fs.ErrExist},
		"half":         {file(t, tiny(t, "")[:200]), "c/y:1", backends.ErrCorrupt},
		"no image":     {file(t, []byte("<html>Not found</html>")), "c/y:1", inspect.ErrNotImage},
		"missing":      {filepath.Join(t.TempDir(), "none"), "c/y:1", fs.ErrInvalid},
		"a directory":  {t.TempDir(), "c/y:1", fs.ErrInvalid},
		"a version":    {path, "c/y:1@x", fs.ErrInvalid},
		"other remote": {path, "nowhere://c/y:1", fs.ErrNotExist},
	} {
		_, err := b.Push(ctx, tc.path, tc.uri, verbs.PushOptions{}, nil)
		wantErr(t, what, err, tc.want)
	}
	if _, err := b.Push(ctx, file(t, tiny(t, "two")), "c/x:1", verbs.PushOptions{Force: true}, nil); err != nil {
		t.Errorf("with force: %v", err)
	}
	if img := b.mustLookup("c/x:1"); img.Digest != digest(tiny(t, "two")) {
		t.Errorf("after force: %+v", img)
	}
}

func TestPull(t *testing.T) {
	t.Parallel()
	svc := newService()
	content := tiny(t, "pulled")
	svc.put("c/x:1", content)
	b := newBench(t, svc)
	ctx := t.Context()
	rec, err := b.Pull(ctx, "c/x:1", verbs.PullOptions{}, nil)
	if err != nil || rec.Path == "" || rec.State != cache.Cached {
		t.Fatalf("Pull = %+v, %v", rec, err)
	}
	to := filepath.Join(t.TempDir(), "x.simg")
	if _, err := b.Pull(ctx, "c/x:1", verbs.PullOptions{To: to}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(to)
	if err != nil || digest(got) != digest(content) {
		t.Errorf("the copy: %v", err)
	}
	if info, _ := os.Stat(to); info.Mode().Perm() != 0o755 {
		t.Errorf("mode %v", info.Mode())
	}
	_, err = b.Pull(ctx, "c/x:1", verbs.PullOptions{To: to}, nil)
	wantErr(t, "taken", err, fs.ErrExist)
	if _, err := b.Pull(ctx, "c/x:1", verbs.PullOptions{To: to, Force: true}, nil); err != nil {
		t.Errorf("with force: %v", err)
	}
	_, err = b.Pull(ctx, "c/x:1", verbs.PullOptions{To: filepath.Dir(to), Force: true}, nil)
	wantErr(t, "a directory", err, fs.ErrExist)
	_, err = b.Pull(ctx, "c/none:1", verbs.PullOptions{}, nil)
	wantErr(t, "missing", err, fs.ErrNotExist)
	left, err := filepath.Glob(filepath.Join(filepath.Dir(to), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestPin(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", tiny(t, ""))
	b := newBench(t, svc)
	if rec, err := b.Pin(t.Context(), "c/x:1"); err != nil || !rec.Pinned {
		t.Fatalf("Pin = %+v, %v", rec, err)
	}
	b.restart()
	if rec, err := b.Find(t.Context(), "c/x:1"); err != nil || !rec.Pinned {
		t.Errorf("after a restart: %+v, %v", rec, err)
	}
	if rec, err := b.Unpin(t.Context(), "c/x:1"); err != nil || rec.Pinned {
		t.Errorf("Unpin = %+v, %v", rec, err)
	}
	b.restart()
	if rec, err := b.Find(t.Context(), "c/x:1"); err != nil || rec.Pinned {
		t.Errorf("after Unpin and a restart: %+v, %v", rec, err)
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", append(tiny(t, ""), make([]byte, 10<<20)...))
	b := newBench(t, svc)
	in, err := b.Inspect(t.Context(), "c/x:1")
	if err != nil || in.Facts.Format != "simg" || in.Record.State != cache.Remote {
		t.Errorf("Inspect = %+v, %v", in, err)
	}
	if n := svc.count("open"); n > 5 {
		t.Errorf("%d ranges read", n)
	}
}

func TestImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := newService()
		for _, name := range []string{"vsoch/hello:1", "vsoch/Hello:2", "a/b/c:latest", "a/x:1"} {
			svc.put(name, []byte(name))
		}
		b := newBench(t, svc)
		images := func(query string, refresh bool) []string {
			t.Helper()
			got, err := uris(t, b.Images(t.Context(), verbs.ImagesOptions{Query: query, Refresh: refresh}))
			if err != nil {
				t.Errorf("Images(%q): %v", query, err)
			}
			return got
		}
		wantDiff(t, "nothing listed yet", images("", false), []string(nil))
		all := []string{"lab://a/x:1", "lab://a/b/c:latest", "lab://vsoch/Hello:2", "lab://vsoch/hello:1"}
		wantDiff(t, "all", images("", true), all)
		for query, want := range map[string][]string{
			"hello":         all[2:],
			"b/c":           {all[1]},
			"LAB://A":       all[:2],
			"vsoch/*":       all[2:],
			"lab://vsoch/*": all[2:],
			"*:1":           {all[0], all[3]},
			"a/?:1":         {all[0]},
			"[xy]*":         nil,
			"nothing":       nil,
		} {
			wantDiff(t, query, images(query, false), want)
		}
		_, err := uris(t, b.Images(t.Context(), verbs.ImagesOptions{Query: "["}))
		wantErr(t, "bad pattern", err, fs.ErrInvalid)
		_, err = uris(t, b.Images(t.Context(), verbs.ImagesOptions{Remote: "nowhere"}))
		wantErr(t, "unknown remote", err, fs.ErrNotExist)
		for rec := range b.Images(t.Context(), verbs.ImagesOptions{Remote: "lab"}) {
			wantDiff(t, "the first", rec.URI, all[0])
			break
		}

		// Offline: what is known comes first, then what went wrong.
		svc.set(func() { svc.down = true })
		time.Sleep(time.Hour)
		got, err := uris(t, b.Images(t.Context(), verbs.ImagesOptions{Refresh: true}))
		wantDiff(t, "offline", got, all)
		wantErr(t, "offline", err, backends.ErrUnavailable)
	})
}

func TestSearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc, dead := newService(), newService()
		svc.put("vsoch/hello:1", []byte("1"))
		svc.put("vsoch/bye:1", []byte("1"))
		dead.down = true
		b := newBench(t, svc, func(b *bench) {
			b.extra = append(b.extra, catalog.Remote{Name: "dead", Client: dead.client("dead")})
		})
		search := func(o verbs.SearchOptions, queries ...string) ([]string, error) {
			o.Queries = queries
			return found(t, b.Search(t.Context(), o))
		}
		got, err := search(verbs.SearchOptions{}, "hello")
		wantDiff(t, "found by the service", got, []string{"not dead", "lab://vsoch/hello:1"})
		wantErr(t, "the dead one", err, nil)
		got, err = search(verbs.SearchOptions{Strict: true}, "hello")
		wantDiff(t, "the dead one is an error", got, []string{"lab://vsoch/hello:1"})
		wantErr(t, "the dead one, strictly", err, backends.ErrUnavailable)
		_, err = search(verbs.SearchOptions{}, "dead://hello")
		wantErr(t, "the dead one, by its name", err, backends.ErrUnavailable)
		b.names("vsoch")
		got, _ = search(verbs.SearchOptions{Remote: "lab"}, "hello")
		wantDiff(t, "known and found once", got, []string{"lab://vsoch/hello:1"})
		if rec, err := b.Find(t.Context(), "vsoch/hello:1"); err != nil || rec.Size != 1 {
			t.Errorf("Get: %+v, %v", rec, err)
		}
		time.Sleep(time.Hour)
	})
}

func TestRemove(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", []byte("1"))
	svc.put("d/y:1", []byte("1"))
	b := newBench(t, svc)
	b.names("")
	b.names("c")
	b.took()
	rec, err := b.Remove(t.Context(), "lab://c/x:1", "")
	if err != nil || rec.URI != "lab://c/x:1" {
		t.Errorf("Remove = %+v, %v", rec, err)
	}
	wantDiff(t, "events", b.took(), []string{"gone c/x:1", "listing ", "listing c"})
	wantDiff(t, "root", b.names(""), []string{"d/"})
	_, err = b.Remove(t.Context(), "lab://c/x:1", "")
	wantErr(t, "again", err, fs.ErrNotExist)
	_, err = b.lookup("c/x:1")
	wantErr(t, "lookup", err, fs.ErrNotExist)

	readOnly := newBench(t, svc, func(b *bench) { b.policy = catalog.Policy{ReadOnly: true} })
	_, err = readOnly.Remove(t.Context(), "lab://d/y:1", "")
	wantErr(t, "read-only", err, backends.ErrReadOnly)

	img := b.mustLookup("d/y:1")
	svc.put("d/y:1", []byte("2"))
	wantErr(t, "changed meanwhile", b.Delete(t.Context(), "lab", img), fs.ErrNotExist)
}

func TestStatus(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", []byte("1"))
	b := newBench(t, svc, func(b *bench) {
		b.extra = append(b.extra, catalog.Remote{Name: "bad", Type: "oci", Err: fmt.Errorf("%w: no url", fs.ErrInvalid)})
	})
	b.names("c")
	st, err := b.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Remotes) != 2 || st.Remotes[0].Error == "" || st.Remotes[1].Images != 1 || st.Remotes[1].Seen.IsZero() || st.Remotes[1].Error != "" {
		t.Errorf("Status = %+v", st.Remotes)
	}
	_, err = b.Lookup(t.Context(), "bad", mustRef(t, "c/x:1"))
	wantErr(t, "unopened remote", err, fs.ErrInvalid)
}

// TestStatus_push looks while "sreg push" sends a file, which makes no draft.
func TestStatus_push(t *testing.T) {
	t.Parallel()
	svc, sending, answer := newService(), make(chan struct{}), make(chan struct{})
	b := newBench(t, svc)
	content := tiny(t, "a")
	path := file(t, content)
	svc.set(func() {
		svc.slow = func(kind string) {
			if kind == "push" {
				close(sending)
				<-answer
			}
		}
	})
	done := make(chan error, 1)
	go func() {
		_, err := b.Push(t.Context(), path, "lab://c/x:1", verbs.PushOptions{}, nil)
		done <- err
	}()
	<-sending
	st, err := b.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Pushes) != 1 || st.Pushes[0].URI != "lab://c/x:1" || st.Pushes[0].Path != path || st.Pushes[0].Size != int64(len(content)) {
		t.Errorf("Pushes = %+v, want that of %s", st.Pushes, path)
	}
	close(answer)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if st, err = b.Status(t.Context()); err != nil || len(st.Pushes) != 0 {
		t.Errorf("afterwards: Pushes = %+v, %v, want none", st.Pushes, err)
	}
}
