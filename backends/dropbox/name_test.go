// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/contenthash"
	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dropbox/dropboxtest"
)

// Whatever the parts of a name are: Dropbox takes the path, and it tells the
// name again.
func FuzzPath(f *testing.F) {
	for _, parts := range [][3]string{
		{"vsoch", "hello", "2.0"}, {"a/b", "c:d", "e@f"}, {"trailing.", "~tmp", "x "}, {"desktop.ini", `back\slash`, "feature/x"},
		{" lead", "~$doc", ".."}, {"ICON\r", "画像", "\x7f"}, {"%41", "100%", "%"}, {"Thumbs.DB/.ds_store", "\xff", "a.sif"}, {"", "a", "\U0001f600"},
	} {
		f.Add(parts[0], parts[1], parts[2])
	}
	f.Fuzz(func(t *testing.T, collection, name, tag string) {
		ref := backends.Ref{Collection: collection, Name: name, Tag: tag}
		c := &client{root: "/some/root"}
		if ref.Check() != nil || tag == "" || c.CheckName(ref) != nil {
			return
		}
		path := c.path(ref, backends.FormatSIF)
		for part := range strings.SplitSeq(path[1:], "/") {
			if why := dropboxtest.CheckComponent(part); why != "" {
				t.Errorf("%+v: Dropbox would refuse %q: %s", ref, part, why)
			}
		}
		p, ok := names.Parse(path[strings.LastIndexByte(path, '/')+1:])
		got := backends.Ref{Collection: c.collectionOf(parent(path)), Name: p.Name, Tag: p.Tag}
		if !ok || p.Flat || p.Version != "" || got != ref {
			t.Errorf("%+v became %q, which tells %+v, %+v", ref, path, got, p)
		}
	})
}

func TestPaths(t *testing.T) {
	t.Parallel()
	c := &client{}
	for collection, want := range map[string][]string{
		"":        {""},
		"a/b":     {"/a/b"},
		"a:b":     {"/a%3Ab", "/a:b"},
		"100%/x:": {"/100%25/x%3A", "/100%/x%3A", "/100%25/x:", "/100%/x:"},
		`a\b`:     {"/a%5Cb"},
		"a%3Ab":   {"/a%253Ab"}, // "/a%3Ab" is "a:b"
	} {
		if diff := cmp.Diff(want, c.paths(collection)); diff != "" {
			t.Errorf("paths(%q) (-want +got):\n%s", collection, diff)
		}
	}
	long := backends.Ref{Collection: "c", Name: strings.Repeat("n", 200), Tag: strings.Repeat("t", 60)}
	if err := c.CheckName(long); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("CheckName of 260 characters: %v", err)
	}
}

func TestContentHash(t *testing.T) {
	t.Parallel()
	text := make([]byte, 2*contenthash.BlockSize+12345)
	rand.Read(text)
	for _, n := range []int{0, 1, contenthash.BlockSize - 1, contenthash.BlockSize, contenthash.BlockSize + 1, len(text)} {
		want, err := contenthash.Compute(strings.NewReader(string(text[:n])))
		if err != nil {
			t.Fatal(err)
		}
		h := newContentHash()
		for part := range slices.Chunk(text[:n], 70_001) {
			h.Write(part)
		}
		if got := h.sum(); got != want || hashOf(text[:n]) != want {
			t.Errorf("%d bytes: %s, want %s", n, got, want)
		}
	}
}

func TestCheckedBody(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", 1000)
	read := func(want string) (string, error) {
		got, err := io.ReadAll(&checkedBody{
			ReadCloser: io.NopCloser(strings.NewReader(text)), hash: newContentHash(), want: want, left: int64(len(text)),
		})
		return string(got), err
	}
	if got, err := read(hashOf([]byte(text))); got != text || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := read(hashOf([]byte("other"))); !errors.Is(err, backends.ErrCorrupt) {
		t.Errorf("with another hash: %d bytes, %v", len(got), err)
	}
}

// The header holds the same JSON, in printable ASCII.
func FuzzASCIIJSON(f *testing.F) {
	for _, s := range []string{"", "plain", "größe", "画像", "\U0001f600", "\x7f\u0080", "\u2028", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := json.Marshal(s)
		if err != nil {
			t.Skip()
		}
		ascii := asciiJSON(string(text))
		for _, b := range []byte(ascii) {
			if b < 0x20 || b >= 0x7f {
				t.Fatalf("byte %#x in %q", b, ascii)
			}
		}
		var want, got string
		if json.Unmarshal(text, &want) != nil || json.Unmarshal([]byte(ascii), &got) != nil || got != want {
			t.Errorf("%q became %q, which is %q", want, ascii, got)
		}
	})
}

// A body of any kind is an error, and none that says a name is not there by
// accident.
func FuzzAPIError(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `null`, `[]`, `{"error": null}`, `{"error": {".tag": "path", "path": {".tag": "not_found"}}}`,
		`{"error": {".tag": "path", "reason": {".tag": "conflict", "conflict": {".tag": "file"}}}}`,
		`{"error": {".tag": "reset"}}`, `{"error": {".tag": 1}}`, `{"error_summary": "not_found", "error": {".tag": "other"}}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := parseAPIError([]byte(text))
		if err == nil || err.Error() == "" {
			t.Fatalf("parseAPIError(%q) = %v", text, err)
		}
		if errors.Is(err, fs.ErrNotExist) && !strings.Contains(text, "not_f") && !strings.Contains(text, `\u`) {
			t.Errorf("parseAPIError(%q) = %v", text, err)
		}
		if len(err.Error()) > 2000 {
			t.Errorf("%d characters", len(err.Error()))
		}
	})
}

func TestAPIError(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{
		`{"error": {".tag": "path", "path": {".tag": "not_found"}}}`:                                      fs.ErrNotExist,
		`{"error": {".tag": "path", "path": {".tag": "malformed_path", "malformed_path": "x"}}}`:          fs.ErrInvalid,
		`{"error": {".tag": "path", "reason": {".tag": "conflict", "conflict": {".tag": "file"}}}}`:       fs.ErrExist,
		`{"error": {".tag": "path", "reason": {".tag": "insufficient_space"}, "upload_session_id": "x"}}`: syscall.EDQUOT,
		`{"error": {".tag": "lookup_failed", "lookup_failed": {".tag": "not_found"}}}`:                    fs.ErrNotExist,
		`{"error": {".tag": "too_many_write_operations"}}`:                                                backends.ErrRateLimited,
		`{"error": {".tag": "other"}}`:                 backends.ErrUnavailable,
		`{"error": {".tag": "something_of_tomorrow"}}`: backends.ErrBadAnswer,
		`<html>`: backends.ErrBadAnswer,
		`{}`:     backends.ErrBadAnswer,
	} {
		if err := parseAPIError([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", text, err, want)
		}
	}
}
