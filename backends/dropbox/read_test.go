// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
)

var noon = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

func mustRef(t *testing.T, s string) backends.Ref {
	t.Helper()
	ref, err := backends.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func readAll(t *testing.T, c *client, img backends.Image) string {
	t.Helper()
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatalf("Open(%s): %v", img.Ref, err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("Open(%s): %v", img.Ref, err)
	}
	return string(text)
}

// listed returns the names in a collection, sorted.
func listed(t *testing.T, c *client, collection string) []string {
	t.Helper()
	entries, err := backends.Collect(c.List(t.Context(), collection))
	if err != nil {
		t.Fatalf("List(%q): %v", collection, err)
	}
	all := []string{}
	for _, e := range entries {
		if e.Collection != "" {
			all = append(all, e.Collection+"/")
			continue
		}
		all = append(all, e.Image.Ref.String())
	}
	slices.Sort(all)
	return all
}

// What sregistry wrote over the years is found, and each name means the right one.
func TestLayouts(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	for path, modified := range map[string]int{
		"/vsoch/hello:2.0.sif": 1, "/vsoch/hello:2.0.simg": 5, "/vsoch/hello:2.0@0f0f.sif": 9, // the first is what the name means
		"/vsoch/hello:old@aaaa.simg": 1, "/vsoch/hello:old@bbbb.simg": 2,
		"/vsoch/hello-1.0.simg": 1, "/vsoch/hello-2.0.simg": 1, "/vsoch/a-b-c.sif": 1,
		"/vsoch/samtools.sif": 1, "/vsoch/readme.txt": 1, "/vsoch/.hidden.sif": 1, "/vsoch/100%:1.sif": 1,
		"/odd:name/x:1.sif": 1, "/root:1.sif": 1,
	} {
		srv.Put(path, []byte(path), noon.AddDate(0, 0, modified))
	}
	srv.Mkdir("/empty")
	for spec, want := range map[string]string{
		"vsoch/hello:2.0":          "/vsoch/hello:2.0.sif",
		"vsoch/hello:2.0@0f0f":     "/vsoch/hello:2.0@0f0f.sif",
		"vsoch/hello:2.0@md5:0f0f": "/vsoch/hello:2.0@0f0f.sif",
		"vsoch/hello:old":          "/vsoch/hello:old@bbbb.simg",
		"vsoch/hello:old@aaaa":     "/vsoch/hello:old@aaaa.simg",
		"vsoch/hello-1.0:latest":   "/vsoch/hello-1.0.simg",
		"vsoch/hello:1.0":          "/vsoch/hello-1.0.simg", // as it was once stored
		"vsoch/a-b:c":              "/vsoch/a-b-c.sif",
		"vsoch/a:b-c":              "/vsoch/a-b-c.sif",
		"vsoch/samtools":           "/vsoch/samtools.sif",
		"vsoch/100%25:1":           "/vsoch/100%:1.sif",
		"odd%3Aname/x:1":           "/odd:name/x:1.sif",
		"/root:1":                  "/root:1.sif",
	} {
		img, err := c.Stat(t.Context(), mustRef(t, spec))
		if err != nil {
			t.Errorf("Stat(%s): %v", spec, err)
			continue
		}
		if got := readAll(t, c, img); got != want {
			t.Errorf("%s is %s, want %s", spec, got, want)
		}
	}
	want := []string{"vsoch/100%25:1", "vsoch/a-b-c:latest", "vsoch/hello-1.0:latest", "vsoch/hello-2.0:latest", "vsoch/hello:2.0", "vsoch/hello:old", "vsoch/samtools:latest"}
	if diff := cmp.Diff(want, listed(t, c, "vsoch")); diff != "" {
		t.Errorf("List(vsoch) (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/root:1", "empty/", "odd:name/", "vsoch/"}, listed(t, c, "")); diff != "" {
		t.Errorf("List of the root (-want +got):\n%s", diff)
	}
	if got := listed(t, c, "empty"); len(got) != 0 {
		t.Errorf("List(empty) = %q", got)
	}
}

// A file that was replaced can still be read by its rev, and is no longer meant.
func TestRevisions(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	first := srv.Put("/vsoch/hello:1.sif", []byte("first"), noon)
	old, err := c.Stat(t.Context(), mustRef(t, "vsoch/hello:1"))
	if err != nil || old.Version != first {
		t.Fatalf("%+v, %v", old, err)
	}
	srv.Put("/vsoch/hello:1.sif", []byte("second"), noon)
	srv.Put("/vsoch/other:1.sif", []byte("other"), noon)
	if got := readAll(t, c, old); got != "first" {
		t.Errorf("the old version reads %q", got)
	}
	ref := old.Ref
	ref.Version = first
	if img, err := c.Stat(t.Context(), ref); err != nil || img.Version != first || img.Size != 5 {
		t.Errorf("Stat of the old rev = %+v, %v", img, err)
	}
	ref.Name = "other"
	if img, err := c.Stat(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of another file's rev = %+v, %v", img, err)
	}
	now, err := c.Stat(t.Context(), old.Ref)
	if err != nil || now.Version == first || readAll(t, c, now) != "second" {
		t.Errorf("%+v, %v", now, err)
	}
	if err := c.Delete(t.Context(), old); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Delete of the old version: %v", err)
	}
	if _, err := c.Share(t.Context(), old, ""); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("Share of the old version: %v", err)
	}
}

// How many requests things take is a promise of the documentation.
func TestRequests(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	for i := range 10_000 {
		srv.Put(fmt.Sprintf("/vsoch/image%d:1.sif", i), []byte("x"), noon)
	}
	count := func(what string, want int64, do func()) {
		t.Helper()
		before := srv.Requests()
		if do(); srv.Requests()-before != want {
			t.Errorf("%s: %d requests, want %d", what, srv.Requests()-before, want)
		}
	}
	count("ls /", 1, func() { listed(t, c, "") })
	count("ls of 10,000", 5, func() {
		if n := len(listed(t, c, "vsoch")); n != 10_000 {
			t.Errorf("%d images", n)
		}
	})
	count("stat", 1, func() {
		if _, err := c.Stat(t.Context(), mustRef(t, "vsoch/image77:1")); err != nil {
			t.Error(err)
		}
	})
	count("stat of a missing name", 6, func() {
		if _, err := c.Stat(t.Context(), mustRef(t, "vsoch/none:1")); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
	push := func(spec string) func() {
		return func() {
			if _, err := c.Push(t.Context(), mustRef(t, spec), source([]byte("new"))); err != nil {
				t.Error(err)
			}
		}
	}
	count("push into a new collection", 4, push("new/image:1"))
	count("push of a new tag", 3, push("new/image:2"))
}

// A listing that Dropbox resets half-way begins anew, and tells each name once.
func TestReset(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{PageSize: 10})
	for i := range 35 {
		srv.Put(fmt.Sprintf("/vsoch/image:%d.sif", i), []byte("x"), noon)
	}
	pages := 0
	srv.SetHook(func(route string, _ http.ResponseWriter, _ *http.Request) bool {
		if route == "files/list_folder/continue" {
			if pages++; pages == 3 {
				srv.ResetCursors()
			}
		}
		return false
	})
	if n := len(listed(t, c, "vsoch")); n != 35 {
		t.Errorf("%d images, want 35", n)
	}
	srv.SetHook(func(route string, w http.ResponseWriter, _ *http.Request) bool {
		return route == "files/list_folder/continue" && dropboxtest.Refuse(w, 409, `{"error_summary": "reset/..", "error": {".tag": "reset"}}`)
	})
	if _, err := backends.Collect(c.List(t.Context(), "vsoch")); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("a listing that is always reset: %v", err)
	}
}

// What no Dropbox would answer ends as an error: no panic, no endless loop, no
// name that leads out of its collection.
func TestHostile(t *testing.T) {
	t.Parallel()
	file := `{".tag": "file", "name": %q, "path_display": "/c/x:1.sif", "path_lower": "/c/x:1.sif", "id": "id:1", "rev": %q, "size": %s, "is_downloadable": true,
		"client_modified": "2024-01-01T00:00:00Z", "server_modified": "2024-01-01T00:00:00Z"}`
	page := func(more bool, cursor string, entries ...string) string {
		return fmt.Sprintf(`{"entries": [%s], "cursor": %q, "has_more": %v}`, strings.Join(entries, ","), cursor, more)
	}
	good := fmt.Sprintf(file, "x:1.sif", "0123456789", "1")
	for name, answer := range map[string]string{
		"null":              `null`,
		"list":              `[]`,
		"no cursor":         `{}`,
		"endless":           page(true, "same", good),
		"empty endless":     page(true, "same"),
		"null entries":      page(true, "same", "null"),
		"bad rev":           page(false, "c", fmt.Sprintf(file, "x:1.sif", "../../x", "1")),
		"no rev":            page(false, "c", fmt.Sprintf(file, "x:1.sif", "", "1")),
		"huge size":         page(false, "c", fmt.Sprintf(file, "x:1.sif", "0123456789", "18446744073709551615")),
		"negative size":     page(false, "c", fmt.Sprintf(file, "x:1.sif", "0123456789", "-1")),
		"bad time":          page(false, "c", strings.Replace(good, "2024-01-01T00:00:00Z", "yesterday", 1)),
		"huge answer":       `{"entries": [], "cursor": "` + strings.Repeat("x", maxAnswer) + `"}`,
		"deep":              strings.Repeat("[", 1<<20),
		"entry of a string": page(false, "c", `"x"`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv, c := serve(t, dropboxtest.Options{})
			srv.Mkdir("/c")
			srv.SetHook(func(route string, w http.ResponseWriter, _ *http.Request) bool {
				return strings.HasPrefix(route, "files/list_folder") && dropboxtest.Refuse(w, 200, answer)
			})
			got, err := backends.Collect(c.List(t.Context(), "c"))
			if !errors.Is(err, backends.ErrBadAnswer) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%d entries, %.200v; want ErrBadAnswer", len(got), err)
			}
			if n := srv.Requests(); n > 3 {
				t.Errorf("%d requests", n)
			}
		})
	}
	// Names that cannot be are hidden by Client, which looks at each.
	srv, c := serve(t, dropboxtest.Options{})
	srv.Mkdir("/c")
	srv.SetHook(func(route string, w http.ResponseWriter, _ *http.Request) bool {
		entries := []string{good}
		for _, name := range []string{"../x:1.sif", "a/b:1.sif", "..:1.sif", "\x00:1.sif"} {
			entries = append(entries, fmt.Sprintf(strings.ReplaceAll(file, "%q", "%s"), jsonString(name), `"0123456789"`, "1"))
		}
		for _, name := range []string{"..", "a/../../b", ".", "x\x00"} {
			entries = append(entries, fmt.Sprintf(`{".tag": "folder", "name": %s, "id": "id:2"}`, jsonString(name)))
		}
		return strings.HasPrefix(route, "files/list_folder") && dropboxtest.Refuse(w, 200, page(false, "c", entries...))
	})
	all, err := backends.Collect(backends.NewClient("x", c, backends.ClientOptions{}).List(t.Context(), "c"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if strings.Contains(e.Collection, "..") || strings.ContainsAny(e.Collection+e.Image.Ref.Name, "\x00") {
			t.Errorf("shown: %+v", e)
		}
	}
}

func jsonString(s string) string {
	var b bytes.Buffer
	b.WriteByte('"')
	for _, c := range []byte(s) {
		if c < 0x20 {
			fmt.Fprintf(&b, `\u%04x`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String() + `"`
}

// A body that is not the one asked for is refused.
func TestOpenChecks(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	srv.Put("/vsoch/hello:1.sif", bytes.Repeat([]byte("0123456789"), 100), noon)
	srv.Put("/vsoch/empty:1.sif", nil, noon)
	img, err := c.Stat(t.Context(), mustRef(t, "vsoch/hello:1"))
	if err != nil {
		t.Fatal(err)
	}
	empty, err := c.Stat(t.Context(), mustRef(t, "vsoch/empty:1"))
	if err != nil || readAll(t, c, empty) != "" {
		t.Errorf("an empty file: %v", err)
	}
	meta := `{"name": "x", "rev": %q, "size": %d, "content_hash": %q, "is_downloadable": true, "client_modified": "2024-01-01T00:00:00Z", "server_modified": "2024-01-01T00:00:00Z"}`
	for name, h := range map[string]string{
		"another rev": fmt.Sprintf(meta, "fffffffff", 1000, ""), "another size": fmt.Sprintf(meta, img.Version, 999, ""),
		"null": "null", "no JSON": "<html>", "none": "",
	} {
		srv.SetHook(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Dropbox-API-Result", h)
			return dropboxtest.Refuse(w, 200, strings.Repeat("x", 1000))
		})
		if body, err := c.Open(t.Context(), img, 0, -1); !errors.Is(err, backends.ErrBadAnswer) {
			t.Errorf("%s: %v, %v, want ErrBadAnswer", name, body, err)
		}
	}
	srv.SetHook(func(_ string, w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Dropbox-API-Result", fmt.Sprintf(meta, img.Version, 1000, dropboxtest.Hash([]byte("other bytes"))))
		return dropboxtest.Refuse(w, 200, strings.Repeat("x", 1000))
	})
	body, err := c.Open(t.Context(), img, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadAll(body); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("bytes with another content_hash: %v", err)
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{PageSize: 3})
	for i := range 8 {
		srv.Put(fmt.Sprintf("/Lab/hello-world:%d.sif", i), []byte("x"), noon)
	}
	srv.Put("/Lab/hello world.txt", nil, noon)
	srv.Put("/Lab/hello:1.sif", nil, noon)
	found, err := backends.Collect(c.Search(t.Context(), "World HELLO"))
	if err != nil || len(found) != 8 {
		t.Fatalf("%d found, %v", len(found), err)
	}
	for _, img := range found {
		if img.Ref.Collection != "Lab" || img.Ref.Name != "hello-world" {
			t.Errorf("found %s", img.Ref)
		}
	}
	if found, err := backends.Collect(c.Search(t.Context(), " ")); err != nil || len(found) != 0 {
		t.Errorf("an empty query: %v, %v", found, err)
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	srv, c := serve(t, dropboxtest.Options{})
	srv.Put("/vsoch/größe:1.sif", nil, noon)
	img, err := c.Stat(t.Context(), mustRef(t, "vsoch/größe:1"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.Share(t.Context(), img, "")
	if err != nil || !strings.HasPrefix(first, "https://www.dropbox.com/") {
		t.Fatalf("%q, %v", first, err)
	}
	if second, err := c.Share(t.Context(), img, ""); err != nil || second != first {
		t.Errorf("the second time: %q, %v, want %q", second, err, first)
	}
	if _, err := c.Share(t.Context(), img, "you@example.org"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("with a person: %v", err)
	}
	srv.SetHook(func(route string, w http.ResponseWriter, _ *http.Request) bool {
		return strings.HasPrefix(route, "sharing/") && dropboxtest.Refuse(w, 200, `{".tag": "file", "url": "javascript:alert(1)", "name": "x"}`)
	})
	if link, err := c.Share(t.Context(), img, ""); !errors.Is(err, backends.ErrBadAnswer) {
		t.Errorf("a link that is none: %q, %v", link, err)
	}
}
