// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/mem"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
)

const image = "../inspect/testdata/small-plain.simg"

// newVerbs returns the verbs of a catalogue with a local store in a temporary directory.
func newVerbs(t *testing.T) *verbs.Verbs {
	t.Helper()
	tmp := t.TempDir()
	b, err := dir.Open(t.Context(), backends.Env{Remote: "local", Type: "dir", Config: map[string]any{"path": filepath.Join(tmp, "images")}})
	if err != nil {
		t.Fatal(err)
	}
	state := func() (*catalog.State, error) {
		blobs, err := cache.Open(filepath.Join(tmp, "cache"), cache.Options{})
		if err != nil {
			return nil, err
		}
		drafts, err := spool.Open(filepath.Join(tmp, "spool"), spool.Options{})
		return &catalog.State{Index: index.New(mem.New()), Cache: blobs, Spool: drafts}, err
	}
	c, err := catalog.New(catalog.Options{
		Remotes: []catalog.Remote{{Name: "local", Type: "dir", Client: backends.NewClient("local", b, backends.ClientOptions{}),
			Policy: catalog.Policy{Overwrite: true, Delete: true}}},
		State:   state,
		Records: filepath.Join(tmp, "records"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return verbs.New(c, uploads.New(c, nil), verbs.Options{Version: "test"})
}

// Each method of Client gives what the method of Catalog gives, over a socket too.
func TestVerbs(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"local", "socket"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := newVerbs(t)
			h := Handler(v, Options{Mount: "/mnt", Details: func() map[string]string { return map[string]string{"a": "b"} }})
			c := Local(h)
			if kind == "socket" {
				var err error
				if c, err = Dial(t.Context(), serve(t, h)); err != nil {
					t.Fatal(err)
				}
			}
			defer c.Close()
			checkWrites(t, c)
			checkReads(t, c, v)
			checkErrors(t, c)
			if r, err := c.Remove(t.Context(), "a/b:1", ""); err != nil || r.URI != "local://a/b:1" {
				t.Errorf("Remove: %+v, %v", r, err)
			}
			if _, err := c.Get(t.Context(), "a/b:1"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Get after Remove: %v", err)
			}
		})
	}
}

func checkWrites(t *testing.T, c *Client) {
	t.Helper()
	path, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := c.Add(t.Context(), path, "a/b:1", verbs.AddOptions{}, nil); err != nil || r.URI != "local://a/b:1" || r.Size != int64(len(want)) {
		t.Fatalf("Add: %+v, %v", r, err)
	}
	if r, err := c.Push(t.Context(), path, "local://a/b:2", verbs.PushOptions{}, nil); err != nil || r.URI != "local://a/b:2" {
		t.Fatalf("Push: %+v, %v", r, err)
	}
	to := filepath.Join(t.TempDir(), "copy")
	if _, err := c.Pull(t.Context(), "a/b:2", verbs.PullOptions{To: to}, nil); err != nil {
		t.Fatalf("Pull: %v", err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Pull wrote %d bytes, %v, want %d", len(got), err, len(want))
	}
}

func checkReads(t *testing.T, c *Client, v *verbs.Verbs) {
	t.Helper()
	same := func(what string, want, got any, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(plain(t, want), plain(t, got)); diff != "" {
			t.Errorf("%s (-catalogue +client):\n%s", what, diff)
		}
	}
	wantAll, err := backends.Collect(v.Images(t.Context(), verbs.ImagesOptions{Query: "b:"}))
	if err != nil || len(wantAll) != 2 {
		t.Fatalf("%d images, %v", len(wantAll), err)
	}
	gotAll, err := backends.Collect(c.Images(t.Context(), verbs.ImagesOptions{Query: "b:"}))
	same("Images", wantAll, gotAll, err)
	gotBrief, err := backends.Collect(c.ImagesBrief(t.Context(), verbs.ImagesOptions{Query: "b:"}))
	var wantBrief []verbs.Record
	for _, r := range wantAll {
		wantBrief = append(wantBrief, verbs.Record{URI: r.URI, Size: r.Size, Modified: r.Modified, State: r.State, Pinned: r.Pinned})
	}
	same("ImagesBrief", wantBrief, gotBrief, err)
	search := verbs.SearchOptions{Queries: []string{"b:"}, Remote: "local"}
	wantHits, err := backends.Collect(v.Search(t.Context(), search))
	if err != nil || len(wantHits) != 2 {
		t.Fatalf("%d hits, %v", len(wantHits), err)
	}
	gotHits, err := backends.Collect(c.Search(t.Context(), search))
	same("Search", wantHits, gotHits, err)
	want, err := v.Get(t.Context(), "a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(t.Context(), "a/b:1")
	same("Get", want, got, err)
	gotAll, err = backends.Collect(c.Choose(t.Context(), "local://a/"))
	same("Choose", wantAll, gotAll, err)
	wantWarm, err := v.Warm(t.Context(), "a/b:1", verbs.WarmOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var told int64
	gotWarm, err := c.Warm(t.Context(), "a/b:1", verbs.WarmOptions{}, func(done, _ int64) { told = done })
	same("Warm", wantWarm, gotWarm, err)
	if told != want.Size {
		t.Errorf("Warm told of %d bytes, want %d", told, want.Size)
	}
	wantUse, err := v.CacheUse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	gotUse, err := c.CacheUse(t.Context())
	gotUse.Free = wantUse.Free // of a disk that others use
	same("CacheUse", wantUse, gotUse, err)
	if all, err := backends.Collect(c.Cached(t.Context(), nil)); err != nil || len(all) != 0 {
		t.Errorf("Cached: %v, %v", all, err)
	}
	if freed, err := c.RemoveCached(t.Context(), absent); err != nil || freed != 0 {
		t.Errorf("RemoveCached freed %d, %v", freed, err)
	}
	wantIn, err := v.Inspect(t.Context(), "a/b:1")
	if err != nil {
		t.Fatal(err)
	}
	gotIn, err := c.Inspect(t.Context(), "a/b:1")
	same("Inspect", wantIn, gotIn, err)
	// A file with a temporary name goes nowhere yet.
	draft, err := v.Uploads().Stage(spool.Target{Remote: "local"})
	if err != nil {
		t.Fatal(err)
	}
	defer draft.Close()
	wantSt, err := v.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantSt.Mount, wantSt.Details = "/mnt", map[string]string{"a": "b"}
	gotSt, err := c.Status(t.Context())
	wantSt.Remotes[0].Seen = gotSt.Remotes[0].Seen // when it last answered: between the two
	same("Status", wantSt, gotSt, err)
	if diff := cmp.Diff(wantSt.Uploads, gotSt.Uploads); diff != "" || len(gotSt.Uploads) != 1 {
		t.Errorf("Uploads: %s", diff)
	}
}

// absent is the key of a blob that is not in the cache.
const absent = cache.Key("sha256:0000000000000000000000000000000000000000000000000000000000000000")

func checkErrors(t *testing.T, c *Client) {
	t.Helper()
	ctx := t.Context()
	get := func(_ any, err error) error { return err }
	for _, e := range []struct {
		what string
		err  error
		want error
	}{
		{"Get", get(c.Get(ctx, "a/nothing:1")), fs.ErrNotExist},
		{"Get", get(c.Get(ctx, "a/b:c:d")), fs.ErrInvalid},
		{"Inspect", get(c.Inspect(ctx, "a/nothing:1")), fs.ErrNotExist},
		{"Pull", get(c.Pull(ctx, "a/b:1", verbs.PullOptions{To: "relative"}, nil)), fs.ErrInvalid},
		{"Warm", get(c.Warm(ctx, "a/b:1", verbs.WarmOptions{To: "relative"}, nil)), fs.ErrInvalid},
		{"Choose", get(backends.Collect(c.Choose(ctx, "local://none/"))), fs.ErrNotExist},
		{"Cached", get(backends.Collect(c.Cached(ctx, []string{"a/nothing:1"}))), fs.ErrNotExist},
		{"VerifyCached", c.VerifyCached(ctx, absent, nil), fs.ErrInvalid},
		{"Push", get(c.Push(ctx, "relative", "a/b:1", verbs.PushOptions{}, nil)), fs.ErrInvalid},
		{"Add", get(c.Add(ctx, "", "a/b:1", verbs.AddOptions{}, nil)), fs.ErrInvalid},
		{"Add", get(c.Add(ctx, "/dev/null", "a/c:1", verbs.AddOptions{}, nil)), nil},
		{"Images", get(backends.Collect(c.Images(ctx, verbs.ImagesOptions{Remote: "nowhere"}))), fs.ErrNotExist},
		{"Retry", c.Retry(ctx, "nothing", nil), fs.ErrNotExist},
		{"Discard", c.Discard(ctx, "nothing"), fs.ErrNotExist},
		{"Remove", get(c.Remove(ctx, "a/nothing:1", "")), fs.ErrNotExist},
		{"Share", get(c.Share(ctx, "a/nothing:1", "")), fs.ErrNotExist},
		{"Labels", get(backends.Collect(c.Labels(ctx, verbs.LabelsOptions{Remote: "nowhere"}))), fs.ErrNotExist},
	} {
		if e.err == nil || e.want != nil && !errors.Is(e.err, e.want) {
			t.Errorf("%s gives %v, want %v", e.what, e.err, e.want)
		}
	}
}

// plain is v as its JSON says: the only thing that travels.
func plain(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
