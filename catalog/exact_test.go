// SPDX-License-Identifier: Apache-2.0

package catalog_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// What a URI says of a version is still said where the verb acts.
func TestRemove_version(t *testing.T) {
	t.Parallel()
	svc := newService()
	old := svc.put("c/x:1", []byte("1"))
	now := svc.put("c/x:1", []byte("2"))
	b := newBench(t, svc)
	ctx := t.Context()
	for what, remove := range map[string]func() (verbs.Record, error){
		"a version that the tag does not mean": func() (verbs.Record, error) { return b.Remove(ctx, "lab://c/x:1@"+old.Version, "") },
		"the tag, if it means another":         func() (verbs.Record, error) { return b.Remove(ctx, "lab://c/x:1", old.Version) },
	} {
		rec, err := remove()
		wantErr(t, what, err, fs.ErrNotExist)
		if rec.URI == "lab://c/x:1" {
			t.Errorf("%s: the record is of %s", what, rec.URI)
		}
		if img := b.mustLookup("c/x:1"); img.Version != now.Version {
			t.Fatalf("%s: the tag means %q now", what, img.Version)
		}
	}
	rec, err := b.Removable(ctx, "lab://c/x:1@"+old.Version)
	if err != nil || rec.URI != "lab://c/x:1@rev1" || rec.Size != 1 {
		t.Errorf("Removable = %+v, %v", rec, err)
	}
	if _, err := b.Remove(ctx, "lab://c/x:1@"+now.Version, now.Version); err != nil {
		t.Errorf("the version that the tag means: %v", err)
	}
	_, err = b.lookup("c/x:1")
	wantErr(t, "afterwards", err, fs.ErrNotExist)
}

// A tag that moved since it was looked at is not deleted, and looked at anew.
func TestDelete_moved(t *testing.T) {
	t.Parallel()
	svc := newService()
	svc.put("c/x:1", []byte("1"))
	b := newBench(t, svc)
	seen := b.mustLookup("c/x:1")
	now := svc.put("c/x:1", []byte("2"))
	b.took()
	wantErr(t, "Delete", b.Delete(t.Context(), "lab", seen), fs.ErrNotExist)
	wantDiff(t, "events", b.took(), []string{"changed c/x:1"})
	if img := b.mustLookup("c/x:1"); img.Version != now.Version {
		t.Errorf("after that the tag is taken for %q", img.Version)
	}
}

// Of several versions of one local name the one that is said goes.
func TestRemove_oneOfSeveral(t *testing.T) {
	t.Parallel()
	root, local := withLocal(t)
	b := newBench(t, newService(), local)
	ctx := t.Context()
	folder := filepath.Join(root, "c", "x")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	var versions []string
	for _, text := range []string{"1", "2"} {
		content := tiny(t, text)
		v := fmt.Sprintf("%x", sha256.Sum256(content))
		versions = append(versions, v)
		if err := os.WriteFile(filepath.Join(folder, "1@"+v+".simg"), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := b.Get(ctx, "local://c/x:1@"+versions[0])
	if err != nil || got.URI != "local://c/x:1@"+versions[0] || filepath.Base(got.Path) != "1@"+versions[0]+".simg" {
		t.Errorf("Get = %s, %s, %v", got.URI, got.Path, err)
	}
	if rec, err := b.Remove(ctx, got.URI, ""); err != nil || rec.URI != got.URI {
		t.Errorf("Remove = %+v, %v", rec, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "1@"+versions[1]+".simg")); err != nil {
		t.Errorf("the other version: %v", err)
	}
	_, err = b.Remove(ctx, got.URI, "")
	wantErr(t, "once more", err, fs.ErrNotExist)
}

// A verb that changes something never goes on to another registry.
func TestChanging_oneRemote(t *testing.T) {
	t.Parallel()
	_, local := withLocal(t)
	svc := newService()
	img := svc.put("c/x:1", tiny(t, ""))
	b := newBench(t, svc, local)
	ctx := t.Context()
	b.names("c")
	if _, err := b.Add(ctx, file(t, tiny(t, "here")), "local://c/x:1", verbs.AddOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if rec, err := b.Remove(ctx, "c/x:1", ""); err != nil || rec.URI != "local://c/x:1" {
		t.Errorf("the first Remove = %s, %v", rec.URI, err)
	}
	_, err := b.Removable(ctx, "c/x:1")
	wantErr(t, "the question", err, fs.ErrNotExist)
	_, err = b.Remove(ctx, "c/x:1", "")
	wantErr(t, "the second Remove", err, fs.ErrNotExist)
	if now := b.mustLookup("c/x:1"); now.Version != img.Version {
		t.Error("the registry's image is gone")
	}
	if _, err := b.Get(ctx, "c/x:1"); err != nil {
		t.Errorf("a verb that reads: %v", err)
	}
}

// The link that is asked for is of the default remote's image.
func TestShare_oneRemote(t *testing.T) {
	t.Parallel()
	_, local := withLocal(t)
	svc := newService()
	b := newBench(t, svc, local)
	if _, err := b.Add(t.Context(), file(t, tiny(t, "")), "local://c/x:1", verbs.AddOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := b.Share(t.Context(), "c/x:1", "")
	wantErr(t, "what only another remote has", err, fs.ErrNotExist)
}

// Verbs of the local catalogue mean it, whatever the default remote is.
func TestLocalVerbs(t *testing.T) {
	t.Parallel()
	_, local := withLocal(t)
	svc := newService()
	svc.put("c/x:1", tiny(t, "there"))
	b := newBench(t, svc, local)
	ctx := t.Context()
	b.names("c")
	here := tiny(t, "here")
	if rec, err := b.Add(ctx, file(t, here), "c/x:1", verbs.AddOptions{}, nil); err != nil || rec.URI != "local://c/x:1" {
		t.Errorf("Add = %s, %v", rec.URI, err)
	}
	if n := svc.count("push"); n != 0 {
		t.Errorf("%d pushes to the default remote", n)
	}
	if rec, err := b.Get(ctx, "c/x:1"); err != nil || rec.URI != "local://c/x:1" {
		t.Errorf("Get = %s, %v", rec.URI, err)
	}
	if rec, err := b.Find(ctx, "c/x:1"); err != nil || rec.URI != "lab://c/x:1" {
		t.Errorf("Find = %s, %v", rec.URI, err)
	}
	if rec, err := b.Push(ctx, file(t, here), "c/y:1", verbs.PushOptions{}, nil); err != nil || rec.URI != "lab://c/y:1" {
		t.Errorf("Push = %s, %v", rec.URI, err)
	}
}

// A file of an older version is read by its version, not by its tag.
func TestLookup_versionIsKept(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	backend, err := dir.Open(t.Context(), backends.Env{Remote: "other", Config: map[string]any{"path": root}})
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, newService(), func(b *bench) {
		b.extra = append(b.extra, catalog.Remote{Name: "other", Type: "dir", Client: backends.NewClient("other", backend, backends.ClientOptions{})})
	})
	ctx := t.Context()
	want := tiny(t, "")
	if _, err := b.Push(ctx, file(t, want), "other://c/x:1", verbs.PushOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	rec, err := b.Pull(ctx, "other://c/x:1@"+digest(want), verbs.PullOptions{To: filepath.Join(t.TempDir(), "copy")}, nil)
	if err != nil || rec.Ref != backendtest.Ref(t, "c/x:1@"+digest(want)) {
		t.Errorf("Pull = %s, %v", rec.URI, err)
	}
	if got, err := os.ReadFile(rec.Path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
