// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFindMount(t *testing.T) {
	t.Parallel()
	const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:41 / /home/me/my\040images rw,nosuid,nodev,noatime shared:2 - fuse.sregfs sregfs rw,user_id=1000
91 22 0:42 / /mnt rw - tmpfs tmpfs rw
92 91 0:43 / /mnt rw - fuse.sregfs sregfs rw
broken line
`
	tests := map[string]mountEntry{
		"/home/me/my images": {"0:41", "/home/me/my images", "fuse.sregfs", "rw,user_id=1000"},
		"/mnt":               {"0:43", "/mnt", "fuse.sregfs", "rw"},
		"/":                  {"254:0", "/", "ext4", "rw"},
	}
	for path, want := range tests {
		got, ok := findMount(table, path)
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(mountEntry{})); !ok || diff != "" {
			t.Errorf("findMount(%q): -want +got\n%s", path, diff)
		}
	}
	for _, path := range []string{"/home/me", "/mnt/", "", `/home/me/my\040images`} {
		if got, ok := findMount(table, path); ok {
			t.Errorf("findMount(%q) = %+v, want none", path, got)
		}
	}
}

func TestCheckMountpoint(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	full := filepath.Join(dir, "full")
	empty := filepath.Join(dir, "empty")
	link := filepath.Join(dir, "link")
	for _, err := range []error{
		os.WriteFile(file, nil, 0o600), os.Mkdir(full, 0o700), os.Mkdir(empty, 0o700),
		os.WriteFile(filepath.Join(full, "x"), nil, 0o600), os.Symlink(dir, link),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]error{
		filepath.Join(dir, "missing"): fs.ErrNotExist,
		file:                          fs.ErrInvalid,
		full:                          fs.ErrExist,
		empty:                         nil,
	} {
		if _, err := checkMountpoint(t.Context(), path); !errors.Is(err, want) {
			t.Errorf("checkMountpoint(%s) = %v, want %v", path, err, want)
		}
	}
	got, err := checkMountpoint(t.Context(), filepath.Join(link, "empty"))
	if err != nil || got != empty {
		t.Errorf("checkMountpoint through a link = %q, %v, want %q", got, err, empty)
	}
}

func TestUserAllowOther(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"":                                false,
		"#user_allow_other\n":             false,
		"mount_max = 5\nuser_allow_other": true,
		" user_allow_other \n":            true,
	} {
		conf := filepath.Join(t.TempDir(), "fuse.conf")
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := userAllowOther(conf); got != want {
			t.Errorf("userAllowOther(%q) = %v, want %v", text, got, want)
		}
	}
	if userAllowOther(filepath.Join(t.TempDir(), "none")) {
		t.Error("userAllowOther without a file = true")
	}
}
