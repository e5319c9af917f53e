// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/backendtest"
	"github.com/sregfs/sregfs/backends/drive/drivetest"
)

var (
	day  = time.Date(2024, 2, 29, 12, 30, 0, 0, time.UTC)
	text = []byte("the bytes of an image")
)

// What the old client and people put there, at once.
func TestLayouts(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	srv.AddFile(root, "vsoch/hello:1@0123abc.sif", text, day, "type", "container", "uri", "vsoch/hello:1@0123abc")
	srv.AddFile(root, "vsoch/old-2.0.simg", text, day, "type", "container")
	srv.AddFile(root, "a/b/deep:1.sif", text, day)
	srv.AddFile(root, "top:1.sif", text, day)
	srv.AddFile(root, "vsoch//none:1.sif", text, day)
	srv.AddFile(root, ".sregfs-upload", text, day)
	srv.AddFile(root, "vsochs/other:1.sif", text, day)
	srv.AddFile(root, "notes.txt", text, day)
	srv.AddDoc(root, "vsoch/paper:1.sif")
	tools := srv.AddFolder(root, "tools")
	srv.AddFile(tools, "samtools.sif", text, day)
	srv.AddDoc(tools, "paper.sif")
	srv.AddFolder(root, "empty")
	vsoch := srv.AddFolder(root, "vsoch")
	srv.AddFile(vsoch, "folder:1.sif", text, day)
	srv.AddFile(srv.AddFolder(vsoch, "below"), "x:1.sif", text, day)
	upper := srv.AddFolder(root, "VSOCH")
	srv.AddFile(upper, "HELLO:1.sif", text, day)
	for collection, want := range map[string][]string{
		"":            {"/top:1", "VSOCH/", "a/", "empty/", "tools/", "vsoch/", "vsochs/"},
		"vsoch":       {"vsoch/below/", "vsoch/folder:1", "vsoch/hello:1", "vsoch/old-2.0:latest"},
		"vsoch/below": {"vsoch/below/x:1"},
		"VSOCH":       {"VSOCH/HELLO:1"},
		"a":           {"a/b/"},
		"a/b":         {"a/b/deep:1"},
		"tools":       {"tools/samtools:latest"},
		"empty":       nil,
	} {
		if got := backendtest.Names(t, c, collection); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", collection, got, want)
		}
	}
	for _, collection := range []string{"none", "vsoch/none", "a/c"} {
		_, err := backends.Collect(c.List(t.Context(), collection))
		backendtest.WantErr(t, "List of "+collection, err, fs.ErrNotExist)
	}
	for _, name := range []string{"vsoch/hello:1", "vsoch/hello:1@0123abc", "vsoch/old:2.0", "vsoch/folder:1", "a/b/deep:1", "/top:1", "tools/samtools", "VSOCH/HELLO:1", "vsoch/below/x:1"} {
		backendtest.WantRead(t, c, backendtest.Stat(t, c, name), 4, 5, text[4:9])
	}
	for _, name := range []string{"vsoch/HELLO:1", "Vsoch/hello:1", "vsoch/paper:1", "hello:1", "b/deep:1"} {
		_, err := c.Stat(t.Context(), backendtest.Ref(t, name))
		backendtest.WantErr(t, name, err, fs.ErrNotExist)
	}
}

func TestNoRoot(t *testing.T) {
	t.Parallel()
	srv := drivetest.Start(t, drivetest.Options{})
	c := another(t, srv)
	if got := backendtest.Names(t, c, ""); len(got) > 0 {
		t.Errorf("an empty Drive has %q", got)
	}
	_, err := c.Stat(t.Context(), backendtest.Ref(t, "a/b:1"))
	backendtest.WantErr(t, "Stat", err, fs.ErrNotExist)
	// A folder that somebody shares will do.
	root := srv.AddShared("sregistry")
	srv.AddFile(root, "a/b:1.sif", text, day)
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "a/b:1"), 0, -1, text)
}

func TestRootID(t *testing.T) {
	t.Parallel()
	srv, _, root := serve(t, drivetest.Options{})
	srv.AddFile(root, "a/b:1.sif", text, day)
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	c := open(t, srv, hc, map[string]any{"root_id": root}, token)
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "a/b:1"), 0, -1, text)
	wrong := open(t, srv, hc, map[string]any{"root_id": "1nothing"}, token)
	_, err := backends.Collect(wrong.List(t.Context(), ""))
	backendtest.WantErr(t, "a root_id of nothing", err, fs.ErrPermission)
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	log := &backendtest.Log{}
	srv, c, root := serve(t, drivetest.Options{})
	c.log = log.Logger()
	newer := []byte("newer bytes")
	srv.AddFile(root, "c/i:1.sif", text, day)
	srv.AddFile(root, "c/i:1.sif", newer, day.AddDate(-1, 0, 0))
	one, two := srv.AddFolder(root, "f"), srv.AddFolder(root, "f")
	srv.AddFile(one, "a:1.sif", text, day)
	srv.AddFile(two, "a:1.sif", newer, day)
	srv.AddFile(two, "b:1.sif", text, day)
	for range 3 {
		if got := backendtest.Names(t, c, "c"); !slices.Equal(got, []string{"c/i:1"}) {
			t.Errorf("listed as %q", got)
		}
		if got := backendtest.Names(t, c, "f"); !slices.Equal(got, []string{"f/a:1", "f/b:1"}) {
			t.Errorf("listed as %q", got)
		}
		backendtest.WantRead(t, c, backendtest.Stat(t, c, "c/i:1"), 0, -1, newer)
		backendtest.WantRead(t, c, backendtest.Stat(t, c, "f/a:1"), 0, -1, newer)
	}
	if n := strings.Count(log.String(), "path=c/i:1.sif"); n != 1 {
		t.Errorf("warned %d times:\n%s", n, log)
	}
	// The name goes, and not only one of its files.
	if err := c.Delete(t.Context(), backendtest.Stat(t, c, "c/i:1")); err != nil {
		t.Fatal(err)
	}
	_, err := c.Stat(t.Context(), backendtest.Ref(t, "c/i:1"))
	backendtest.WantErr(t, "Stat of what was deleted", err, fs.ErrNotExist)
}

func TestShortcuts(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	elsewhere := srv.AddFolder(srv.Root(), "Elsewhere")
	target := srv.AddFile(elsewhere, "whatever", text, day)
	srv.AddFile(elsewhere, "far:1.sif", text, day)
	srv.AddShortcut(root, "c/i:1.sif", target)
	srv.AddShortcut(root, "linked", elsewhere)
	gone := srv.AddFile(elsewhere, "gone", text, day)
	srv.AddShortcut(root, "c/gone:1.sif", gone)
	srv.SetTrashed(gone)
	// In circles: to the folder itself, to the root, to what is above it.
	a := srv.AddFolder(root, "a")
	srv.AddShortcut(a, "self", a)
	srv.AddShortcut(a, "root", root)
	srv.AddShortcut(a, "drive", srv.Root())
	for collection, want := range map[string][]string{
		"":        {"a/", "c/", "linked/"},
		"c":       {"c/gone:1", "c/i:1"},
		"linked":  {"linked/far:1"},
		"a":       {"a/drive/"},
		"a/drive": {"a/drive/Elsewhere/"},
	} {
		if got := backendtest.Names(t, c, collection); !slices.Equal(got, want) {
			t.Errorf("List(%q) = %q, want %q", collection, got, want)
		}
	}
	for _, collection := range []string{"a/self", "a/self/self", "a/drive/sregistry", "a/root/a"} {
		_, err := backends.Collect(c.List(t.Context(), collection))
		backendtest.WantErr(t, "List of "+collection, err, fs.ErrNotExist)
	}
	_, err := c.Stat(t.Context(), backendtest.Ref(t, "c/gone:1"))
	backendtest.WantErr(t, "Stat of a shortcut to the trash", err, fs.ErrNotExist)
	img := backendtest.Stat(t, c, "c/i:1")
	backendtest.WantRead(t, c, img, 4, 5, text[4:9])
	backendtest.WantRead(t, c, backendtest.Stat(t, c, "linked/far:1"), 0, -1, text)
	if img, err = c.Move(t.Context(), img, backendtest.Ref(t, "c/moved:1"), ""); err != nil {
		t.Fatal(err)
	}
	backendtest.WantRead(t, c, img, 0, -1, text)
	if err := c.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(srv.Names(false), "whatever") {
		t.Error("what the shortcut led to is gone")
	}
}

func TestTrash(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	srv.SetTrashed(srv.AddFile(root, "c/i:1.sif", text, day))
	folder := srv.AddFolder(root, "f")
	srv.AddFile(folder, "a:1.sif", text, day)
	srv.SetTrashed(folder)
	if got := backendtest.Names(t, c, ""); len(got) > 0 {
		t.Errorf("the trash is shown: %q", got)
	}
	for _, name := range []string{"c/i:1", "f/a:1"} {
		_, err := c.Stat(t.Context(), backendtest.Ref(t, name))
		backendtest.WantErr(t, name, err, fs.ErrNotExist)
	}
}

// A file that is replaced is read as it was; where its revisions are not for us, it is an error.
func TestOpen_replaced(t *testing.T) {
	t.Parallel()
	for _, closed := range []bool{false, true} {
		srv, c, root := serve(t, drivetest.Options{NoRevisions: closed})
		id := srv.AddFile(root, "c/i:1.sif", text, day)
		img := backendtest.Stat(t, c, "c/i:1")
		for range 2 {
			backendtest.WantRead(t, c, img, 4, 5, text[4:9])
		}
		srv.SetContent(id, []byte("others, which are as "))
		if !closed {
			backendtest.WantRead(t, c, img, 4, 5, text[4:9])
			continue
		}
		_, err := backendtest.Read(t, c, img, 4, 5)
		backendtest.WantErr(t, "Open of a version that is no more", err, backends.ErrChanged)
		// One refusal is enough to know.
		if n := srv.Count("drive.revisions.get"); n != 1 {
			t.Errorf("revisions asked for %d times", n)
		}
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	const images = 10_000
	srv, c, root := serve(t, drivetest.Options{})
	folder := srv.AddFolder(root, "tree")
	for i := range images {
		srv.AddFile(root, fmt.Sprintf("flat/image%05d:1.sif", i), text[:i%20+1], day)
		srv.AddFile(folder, fmt.Sprintf("image%05d:1.sif", i), text[:i%20+1], day)
	}
	for _, step := range []struct {
		what string
		n    int
		do   func() error
	}{
		{"the first name: the root, and one", 2, func() error { _, err := c.Stat(t.Context(), backendtest.Ref(t, "flat/image00000:1")); return err }},
		{"a flat collection", 10, func() error { return listed(t, c, "flat", images) }},
		{"a folder", 11, func() error { return listed(t, c, "tree", images) }},
		{"a name of the flat ones", 1, func() error { _, err := c.Stat(t.Context(), backendtest.Ref(t, "flat/image00001:1")); return err }},
		{"a name in a folder", 2, func() error { _, err := c.Stat(t.Context(), backendtest.Ref(t, "tree/image00001:1")); return err }},
		{"ranges", 3, func() error {
			img, err := c.Stat(t.Context(), backendtest.Ref(t, "flat/image00019:1"))
			for range 2 {
				backendtest.WantRead(t, c, img, 4, 5, text[4:9])
			}
			return err
		}},
	} {
		c.mu.Lock()
		c.since = time.Now() // however slow the machine is
		c.mu.Unlock()
		before := srv.Requests()
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.what, err)
		}
		if n := srv.Requests() - before; n != step.n {
			t.Errorf("%s: %d requests, want %d", step.what, n, step.n)
		}
	}
}

func listed(t *testing.T, c *client, collection string, want int) error {
	t.Helper()
	entries, err := backends.Collect(c.List(t.Context(), collection))
	for _, e := range entries {
		if e.Image.Version == "" || !strings.HasPrefix(e.Image.Digest, "sha256:") {
			t.Fatalf("the listing does not tell all: %+v", e.Image)
		}
	}
	if err == nil && len(entries) != want {
		err = fmt.Errorf("%d images", len(entries))
	}
	return err
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	srv, c, root := serve(t, drivetest.Options{})
	srv.AddFile(root, "c/i:1.sif", text, day)
	img := backendtest.Stat(t, c, "c/i:1")
	for _, r := range []struct {
		reason string
		want   error
		says   string
	}{
		{"rateLimitExceeded", backends.ErrRateLimited, ""},
		{"userRateLimitExceeded", backends.ErrRateLimited, ""},
		{"dailyLimitExceeded", backends.ErrRateLimited, "in a day"},
		{"storageQuotaExceeded", syscall.EDQUOT, "shared_drive"},
		{"insufficientPermissions", backends.ErrUnauthorized, "gcloud auth application-default login --scopes=https://www.googleapis.com/auth/drive"},
		{"insufficientFilePermissions", fs.ErrPermission, ""},
		{"downloadQuotaExceeded", fs.ErrPermission, "too often"},
	} {
		srv.SetHook(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
			return drivetest.Refuse(w, 403, r.reason, "No.")
		})
		_, err := c.Stat(t.Context(), img.Ref)
		if !errors.Is(err, r.want) || !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v, want %v with %q", r.reason, err, r.want, r.says)
		}
	}
	srv.SetHook(nil)
	srv.SetAbusive(srv.AddFile(root, "c/bad:1.sif", text, day))
	_, err := backendtest.Read(t, c, backendtest.Stat(t, c, "c/bad:1"), 0, -1)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "malware") {
		t.Errorf("a file that is refused as malware: %v", err)
	}
	if n := srv.Count("drive.files.get"); n != 0 {
		t.Errorf("%d times tried in another way", n)
	}
}

// Without a login nothing is asked: Drive would only say that this is not allowed.
func TestNoLogin(t *testing.T) {
	t.Parallel()
	srv := drivetest.Start(t, drivetest.Options{})
	hc := backends.NewHTTPClient(backends.HTTPOptions{})
	t.Cleanup(hc.CloseIdleConnections)
	c := backendtest.Open(t, Open, hc, map[string]any{"url": srv.URL})
	_, err := c.Stat(t.Context(), backendtest.Ref(t, "c/i:1"))
	if !errors.Is(err, backends.ErrUnauthorized) || !strings.Contains(err.Error(), "sreg login conformance") || srv.Requests() != 0 {
		t.Errorf("without a login: %v, after %d requests", err, srv.Requests())
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, config := range []map[string]any{
		{"root": "a//b"}, {"root": "../a"}, {"root_id": "a/b"}, {"root_id": "1a", "root": "b"}, {"shared_drive": "it's"}, {"url": "https://h/path"},
		{"client_id": "a", "client_file": "b"},
	} {
		_, err := Open(t.Context(), backends.Env{Remote: "r", Config: config})
		backendtest.WantErr(t, fmt.Sprint(config), err, fs.ErrInvalid)
	}
	if got := quote(`it's \ "x"`); got != `'it\'s \\ "x"'` {
		t.Errorf("quote = %s", got)
	}
}

// A name with what has a meaning in a query is a name.
func TestQuotes(t *testing.T) {
	t.Parallel()
	_, c, _ := serve(t, drivetest.Options{})
	for _, name := range []string{`it's/a'b:1`, `back\slash/x:1`, `' or name = 'x/y:1`} {
		ref := backendtest.Ref(t, name)
		if _, err := c.Push(t.Context(), ref, backendtest.Source(text)); err != nil {
			t.Errorf("Push(%s): %v", name, err)
			continue
		}
		if got := backendtest.Names(t, c, ref.Collection); len(got) != 1 {
			t.Errorf("List(%q) = %q", ref.Collection, got)
		}
		backendtest.WantRead(t, c, backendtest.Stat(t, c, name), 0, -1, text)
	}
}
