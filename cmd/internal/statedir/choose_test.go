// SPDX-License-Identifier: Apache-2.0

package statedir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	uid := os.Getuid()
	for name, tt := range map[string]struct {
		env        map[string]string
		home, host string
		want       string
	}{
		"explicit":     {map[string]string{"SREGFS_HOME": tmp + "/x/y", "XDG_STATE_HOME": tmp}, tmp, "h", tmp + "/x/y"},
		"XDG":          {map[string]string{"XDG_STATE_HOME": tmp + "/xdg"}, tmp, "node1", tmp + "/xdg/sregfs/node1"},
		"home":         {nil, tmp, "node1", tmp + "/.local/state/sregfs/node1"},
		"relative XDG": {map[string]string{"XDG_STATE_HOME": "state"}, tmp, "node1", tmp + "/.local/state/sregfs/node1"},
		"no name":      {nil, tmp, "", tmp + "/.local/state/sregfs/localhost"},
		"dots":         {nil, tmp, "..", tmp + "/.local/state/sregfs/localhost"},
		"odd name":     {nil, tmp, "a/b\nc", tmp + "/.local/state/sregfs/a_b_c"},
	} {
		got, notes, err := statedir.Choose(func(k string) string { return tt.env[k] }, tt.home, uid, tt.host)
		if err != nil || got != tt.want || len(notes) > 0 {
			t.Errorf("%s: Choose = %q, %q, %v, want %q", name, got, notes, err, tt.want)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("Choose made %v, %v", left, err)
	}
}

func TestChoose_fallback(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const uid = 0
	tmp := t.TempDir()
	theirs := filepath.Join(tmp, "sregfs", "h")
	file := filepath.Join(tmp, "file")
	link := filepath.Join(tmp, "link", "sregfs", "h")
	for _, err := range []error{
		os.MkdirAll(theirs, 0o700),
		os.Chown(theirs, 4243, -1),
		os.WriteFile(file, nil, 0o600),
		os.MkdirAll(filepath.Dir(link), 0o700),
		os.Symlink(t.TempDir(), link),
		os.Lchown(link, 4243, -1),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		base, why string
	}{
		"somebody else's": {tmp, "uid 4243"},
		"a file":          {file, "not a directory"},
		"their link":      {filepath.Join(tmp, "link"), "uid 4243"},
	} {
		getenv := func(k string) string { return map[string]string{"XDG_STATE_HOME": tt.base}[k] }
		got, notes, err := statedir.Choose(getenv, "", uid, "h")
		if err != nil || got != "/var/tmp/sregfs-0" || len(notes) != 1 || !strings.Contains(notes[0], tt.why) {
			t.Errorf("%s: Choose = %q, %q, %v, want /var/tmp/sregfs-0 and a note with %q", name, got, notes, err, tt.why)
		}
	}
}

// What the user asks for by name is taken or refused, not replaced.
func TestChoose_explicit(t *testing.T) {
	t.Parallel()
	needRoot(t)
	theirs := t.TempDir()
	if err := os.Chown(theirs, 4243, -1); err != nil {
		t.Fatal(err)
	}
	getenv := func(k string) string { return map[string]string{"SREGFS_HOME": theirs}[k] }
	got, _, err := statedir.Choose(getenv, t.TempDir(), 0, "h")
	if !errors.Is(err, fs.ErrPermission) || got != "" || !strings.Contains(err.Error(), "SREGFS_HOME") {
		t.Errorf("Choose = %q, %v, want fs.ErrPermission", got, err)
	}
}

func TestChoose_network(t *testing.T) {
	t.Parallel()
	remote := fuseDir(t)
	env := map[string]string{"XDG_STATE_HOME": remote, "TMPDIR": t.TempDir()}
	got, notes, err := statedir.Choose(func(k string) string { return env[k] }, "", os.Getuid(), "h")
	if err != nil || strings.HasPrefix(got, remote) || len(notes) == 0 || !strings.Contains(notes[0], "FUSE") {
		t.Errorf("Choose = %q, %q, %v, want a local place and a note", got, notes, err)
	}
	env["SREGFS_HOME"] = remote
	if got, _, err := statedir.Choose(func(k string) string { return env[k] }, "", os.Getuid(), "h"); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Choose = %q, %v, want fs.ErrInvalid", got, err)
	}
	if _, err := statedir.Lock(remote); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("Lock: %v, want fs.ErrInvalid", err)
	}
}

func TestDir_names(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	d := lock(t, path)
	got := []string{d.Path(), d.Index(), d.Spool()}
	if diff := cmp.Diff([]string{path, path + "/index", path + "/spool"}, got); diff != "" {
		t.Error(diff)
	}
}
