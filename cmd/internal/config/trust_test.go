// SPDX-License-Identifier: Apache-2.0

//go:build unix

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that somebody else can write, or could have put there, is not obeyed.
func TestCheckTrust(t *testing.T) {
	t.Parallel()
	me := os.Geteuid()
	type trust struct {
		file, dir os.FileMode
		link      bool
		uid       int
		group     int    // of the file; 0 for the one it has
		want      string // in the error; "" for none
	}
	tests := map[string]trust{
		"private":                {file: 0o600, dir: 0o700, uid: me},
		"readable":               {file: 0o644, dir: 0o755, uid: me},
		"a link":                 {file: 0o644, dir: 0o755, link: true, uid: me},
		"written by a group":     {file: 0o664, dir: 0o755, uid: me, group: 4242, want: "chmod go-w"},
		"written by all":         {file: 0o666, dir: 0o755, uid: me, want: "chmod go-w"},
		"in a directory of all":  {file: 0o600, dir: 0o777, uid: me, want: "directory"},
		"a link, likewise":       {file: 0o600, dir: 0o777, link: true, uid: me, want: "directory"},
		"in a sticky directory":  {file: 0o600, dir: 0o777 | os.ModeSticky, uid: me},
		"of another user":        {file: 0o600, dir: 0o700, uid: 4242, want: "belongs to another user"},
		"root, and another user": {file: 0o600, dir: 0o700, uid: 0, want: "belongs to another user"},
	}
	if privateGroup("/etc", uint32(me), uint32(os.Getegid())) {
		tests["written by his own group"] = trust{file: 0o664, dir: 0o775, uid: me}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "etc")
			path := filepath.Join(dir, "config.toml")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if group := tt.group; group != 0 {
				if me != 0 {
					t.Skip("only root gives files away")
				}
				if err := os.Chown(path, me, group); err != nil {
					t.Fatal(err)
				}
			}
			if tt.uid != me || name == "root, and another user" {
				if me != 0 {
					t.Skip("only root gives files away")
				}
				if err := os.Chown(path, 1234, 1234); err != nil {
					t.Fatal(err)
				}
			}
			for p, mode := range map[string]os.FileMode{path: tt.file, dir: tt.dir} {
				if err := os.Chmod(p, mode); err != nil {
					t.Fatal(err)
				}
			}
			name := path
			if tt.link {
				name = filepath.Join(t.TempDir(), "link.toml")
				if err := os.Symlink(path, name); err != nil {
					t.Fatal(err)
				}
			}
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			err = checkTrust(name, info, tt.uid)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// A group is the owner's own if it has his name and nobody else in it:
// with the umask 002 of Red Hat's systems each of his files is writable by it.
func TestPrivateGroup(t *testing.T) {
	t.Parallel()
	const passwd = "root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nmate:x:1001:1001::/home/mate:/bin/sh\n"
	for name, tt := range map[string]struct {
		passwd, group string
		uid, gid      uint32
		want          bool
	}{
		"his own":                 {passwd, "root:x:0:\nme:x:1000:\n", 1000, 1000, true},
		"he is in it himself":     {passwd, "me:x:1000:me\n", 1000, 1000, true},
		"root's":                  {passwd, "root:x:0:\n", 0, 0, true},
		"with a member":           {passwd, "me:x:1000:mate\n", 1000, 1000, false},
		"with him and a member":   {passwd, "me:x:1000:me,mate\n", 1000, 1000, false},
		"of another name":         {passwd, "users:x:1000:\n", 1000, 1000, false},
		"of another number":       {passwd, "me:x:100:\n", 1000, 100, false},
		"under two names":         {passwd, "me:x:1000:\nstaff:x:1000:mate\n", 1000, 1000, false},
		"the first one of others": {passwd + "her:x:1002:1000::/:/bin/sh\n", "me:x:1000:\n", 1000, 1000, false},
		"not his first one":       {"me:x:1000:100::/:/bin/sh\n", "me:x:1000:\n", 1000, 1000, false},
		"of a user not known":     {passwd, "me:x:1000:\n", 1003, 1003, false},
		"of a group not known":    {passwd, "root:x:0:\n", 1000, 1000, false},
		"cut short":               {"me:x:1000\n", "me:x\n", 1000, 1000, false},
	} {
		etc := t.TempDir()
		for file, text := range map[string]string{"passwd": tt.passwd, "group": tt.group} {
			if err := os.WriteFile(filepath.Join(etc, file), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := privateGroup(etc, tt.uid, tt.gid); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	if privateGroup(t.TempDir(), 1000, 1000) {
		t.Error("without the files: want false")
	}
}

// The same where a file is read: the settings of sregistry, which it leaves readable,
// are taken with a warning.
func TestLoad_trust(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o666: false} {
		if err := os.WriteFile(path, []byte("list_ttl = \"5s\"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := readFile(path, true); (err == nil) != ok {
			t.Errorf("mode %#o: %v", mode, err)
		}
		warning, err := checkLegacy(path)
		if (warning != "") != (mode == 0o644) || (err != nil) != (mode == 0o666) {
			t.Errorf("sregistry, mode %#o: %q, %v", mode, warning, err)
		}
	}
}
