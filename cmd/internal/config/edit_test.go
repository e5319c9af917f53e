// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const edited = `# Written by hand.
default = 'lab'   # mine

# The lab's registry.
[remotes.lab]
type = "oci"     # of course
url  = "http://lab.example"
# user = "me"

# What the others have.
[ remotes . "shared" ]
type = "dir"
path = """
/srv/images
# shared"""
[remotes.shared.more]
x = 1

[remotes."v2.lab"]
type = "oci"
`

func TestAddRemote(t *testing.T) {
	t.Parallel()
	got, err := AddRemote([]byte(edited), "new.one", []Key{{"type", "oci"}, {"url", `http://x/"y`}, {"read_only", true}, {"credentials", []any{"a", "b"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := edited + "\n[remotes.\"new.one\"]\ntype = 'oci'\nurl = 'http://x/\"y'\nread_only = true\ncredentials = ['a', 'b']\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if got, err = AddRemote([]byte("a = 1"), "b", []Key{{"type", "dir"}}); err != nil || string(got) != "a = 1\n\n[remotes.b]\ntype = 'dir'\n" {
		t.Errorf("%q, %v", got, err)
	}
	for name, want := range map[string]error{"lab": fs.ErrExist, "v2.lab": fs.ErrExist, "../x": fs.ErrInvalid, "": fs.ErrInvalid} {
		if _, err := AddRemote([]byte(edited), name, nil); !errors.Is(err, want) {
			t.Errorf("AddRemote(%q) gives %v, want %v", name, err, want)
		}
	}
}

func TestRemoveRemote(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]string{
		"lab":    "# The lab's registry.\n[remotes.lab]\ntype = \"oci\"     # of course\nurl  = \"http://lab.example\"\n# user = \"me\"\n\n",
		"shared": edited[strings.Index(edited, "# What"):strings.Index(edited, "[remotes.\"v2")],
		"v2.lab": "\n[remotes.\"v2.lab\"]\ntype = \"oci\"\n",
	} {
		got, err := RemoveRemote([]byte(edited), name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.Replace(edited, gone, "", 1), string(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// The head of a file is not the comment of its first table.
	const head = "# My file.\n[remotes.a]\ntype = 'dir'\n"
	if got, err := RemoveRemote([]byte(head), "a"); err != nil || string(got) != "# My file.\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRenameRemote(t *testing.T) {
	t.Parallel()
	got, err := RenameRemote([]byte(edited), "lab", "uni.lab")
	want := strings.NewReplacer("[remotes.lab]", `[remotes."uni.lab"]`, "'lab'", `"uni.lab"`).Replace(edited)
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	got, err = RenameRemote([]byte(edited), "shared", "ours")
	want = strings.NewReplacer(`remotes . "shared"`, "remotes . ours", "remotes.shared.more", "remotes.ours.more").Replace(edited)
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := RenameRemote([]byte(edited), "lab", "shared"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto another: %v", err)
	}
}

// What is not a table of its own is left to whoever wrote it.
func TestEdit_otherForms(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"remotes = {a = {type = 'dir'}}\n",
		"[remotes]\na = {type = 'dir'}\n",
		"[remotes]\na.type = 'dir'\n",
		"remotes.a.type = 'dir'\n",
		"[remotes]\na.x = 1\n[remotes.a.b]\n",
	} {
		if _, err := RemoveRemote([]byte(text), "a"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("RemoveRemote of %q gives %v", text, err)
		}
		if _, err := RenameRemote([]byte(text), "a", "b"); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("RenameRemote of %q gives %v", text, err)
		}
		if _, err := RemoveRemote([]byte(text), "b"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("RemoveRemote of what is not in %q gives %v", text, err)
		}
		if _, err := AddRemote([]byte(text), "a", nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("AddRemote to %q gives %v", text, err)
		}
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	in := Inputs{Getenv: func(string) string { return "" }, Home: home}
	add := func(name string) func([]byte) ([]byte, error) {
		return func(text []byte) ([]byte, error) { return AddRemote(text, name, []Key{{"type", "oci"}}) }
	}
	fine := func(Settings) error { return nil }
	path, err := Change(in, add("a"), func(s Settings) error {
		if s.Remotes[0].Name != "a" {
			t.Errorf("check gets %+v", s.Remotes)
		}
		return nil
	})
	if err != nil || path != home+"/.config/sregfs/config.toml" {
		t.Fatal(path, err)
	}
	before, err := os.ReadFile(path)
	if info, statErr := os.Stat(path); err != nil || statErr != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, %v", info.Mode(), err, statErr)
	}
	bad := errors.New("bad")
	for name, change := range map[string]func() error{
		"edit": func() error { _, err := Change(in, add("a"), fine); return err },
		"load": func() error {
			_, err := Change(in, func([]byte) ([]byte, error) { return []byte("x = 1"), nil }, fine)
			return err
		},
		"parse": func() error {
			_, err := Change(in, func([]byte) ([]byte, error) { return []byte("x ="), nil }, fine)
			return err
		},
		"check": func() error { _, err := Change(in, add("b"), func(Settings) error { return bad }); return err },
	} {
		if err := change(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Errorf("after errors the file is %q", after)
	}
	all, err := os.ReadDir(filepath.Dir(path))
	if len(all) != 1 || err != nil {
		t.Errorf("files are left: %v, %v", all, err)
	}
}

// A file that is a link stays one.
func TestChange_link(t *testing.T) {
	t.Parallel()
	home, dots := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(home+"/.config/sregfs", 0o700); err != nil {
		t.Fatal(err)
	}
	link := home + "/.config/sregfs/config.toml"
	if err := errors.Join(os.WriteFile(dots+"/sregfs", nil, 0o644), os.Symlink(dots+"/sregfs", link)); err != nil {
		t.Fatal(err)
	}
	in := Inputs{Getenv: func(string) string { return "" }, Home: home}
	_, err := Change(in, func([]byte) ([]byte, error) { return []byte("# x\n"), nil }, func(Settings) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(dots + "/sregfs"); err != nil || string(text) != "# x\n" {
		t.Errorf("%q, %v", text, err)
	}
	if to, err := os.Readlink(link); err != nil || to != dots+"/sregfs" {
		t.Errorf("the link is %q, %v", to, err)
	}
}

// An edit changes the remote that it is about, and no other line.
func FuzzEdit(f *testing.F) {
	f.Add(edited, "lab")
	f.Add("a = 1\r\n\r\n[remotes.x]\r\n", "x")
	f.Add("[remotes.x]\nt = '''\n[remotes.x]\n'''\n# c\n[remotes.x.y]\n[[z]]", "x")
	f.Add("remotes.x.y = 1\n[remotes.x.z]\n", "x")
	f.Add("[remotes]\n[remotes.x]\n#", "x")
	f.Fuzz(func(t *testing.T, text, name string) {
		before, err := parseFile("f", 0o600, []byte(text))
		if err != nil {
			return
		}
		if added, err := AddRemote([]byte(text), "fuzz.new", []Key{{"type", name}}); err == nil && strings.HasPrefix(string(added), text) {
			back, err := RemoveRemote(added, "fuzz.new")
			if err != nil || strings.TrimRight(string(back), "\r\n") != strings.TrimRight(text, "\r\n") {
				t.Errorf("adding to %q and removing gives %q, %v", text, back, err)
			}
		}
		if removed, err := RemoveRemote([]byte(text), name); err == nil {
			sameBut(t, before, removed, name, "")
			subsequence(t, removed, text)
		}
		if renamed, err := RenameRemote([]byte(text), name, "fuzz.new"); err == nil {
			sameBut(t, before, renamed, name, "fuzz.new")
		}
	})
}

// sameBut reports whether text means what before did, with remote from gone or
// named to.
func sameBut(t *testing.T, before *file, text []byte, from, to string) {
	t.Helper()
	after, err := parseFile("f", 0o600, text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	want := maps.Clone(before.top)
	remotes := maps.Clone(want["remotes"].(map[string]any))
	if to != "" {
		remotes[to] = remotes[from]
		if want["default"] == from {
			want["default"] = to
		}
	}
	delete(remotes, from)
	want["remotes"] = remotes
	if _, ok := after.top["remotes"]; !ok && len(remotes) == 0 {
		delete(want, "remotes")
	}
	if diff := cmp.Diff(want, after.top); diff != "" && !strings.Contains(diff, "NaN") {
		t.Errorf("%q: %s", text, diff)
	}
}

func subsequence(t *testing.T, part []byte, whole string) {
	t.Helper()
	lines := strings.SplitAfter(whole, "\n")
	for line := range strings.SplitAfterSeq(string(part), "\n") {
		for len(lines) > 0 && lines[0] != line {
			lines = lines[1:]
		}
		if len(lines) == 0 && line != "" {
			t.Fatalf("%q has the line %q, which is not in %q", part, line, whole)
		}
		if len(lines) > 0 {
			lines = lines[1:]
		}
	}
}

func TestSetKeys(t *testing.T) {
	t.Parallel()
	const text = `# Mine.
[remotes.lab] # the lab
type = "oci"     # of course
credentials = [ "a", # first
  "]" ] # all
url  = "http://lab.example"
# user = "me"

[remotes.empty]
[remotes."v2.lab"]
type = "oci"`
	for _, tt := range []struct {
		name string
		keys []Key
		from string
		to   string
	}{
		{"lab", []Key{{"url", "https://new"}}, `"http://lab.example"`, `'https://new'`},
		{"lab", []Key{{"type", "ghcr"}}, `"oci"     # of`, `'ghcr'     # of`},
		{"lab", []Key{{"credentials", []any{"x"}}}, "[ \"a\", # first\n  \"]\" ]", "['x']"},
		{"lab", []Key{{"credentials", nil}}, "credentials = [ \"a\", # first\n  \"]\" ] # all\n", ""},
		{"lab", []Key{{"nothing", nil}}, "", ""},
		{"lab", []Key{{"read_only", true}, {"user", "you"}}, "example\"\n", "example\"\nread_only = true\nuser = 'you'\n"},
		{"empty", []Key{{"type", "dir"}}, "[remotes.empty]\n", "[remotes.empty]\ntype = 'dir'\n"},
		{"v2.lab", []Key{{"arch", "arm64"}}, "\ntype = \"oci\"\x00", "\ntype = \"oci\"\narch = 'arm64'\n\x00"},
		{"machine", []Key{{"user", "me"}, {"arch", "arm64"}}, "\x00", "\n\n[remotes.machine]\nuser = 'me'\narch = 'arm64'\n\x00"},
	} {
		got, err := SetKeys([]byte(text), tt.name, tt.keys)
		want := strings.TrimSuffix(strings.Replace(text+"\x00", tt.from, tt.to, 1), "\x00")
		if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
			t.Errorf("%s %v: %v\n%s", tt.name, tt.keys, err, diff)
		}
	}
	for _, loose := range []string{"remotes.lab.type = 'oci'", "[remotes]\nlab = {type = 'oci'}"} {
		if _, err := SetKeys([]byte(loose), "lab", []Key{{"url", "x"}}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", loose, err)
		}
	}
}
