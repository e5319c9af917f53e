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
	for name, tt := range map[string]struct {
		file, dir os.FileMode
		link      bool
		uid       int
		want      string // in the error; "" for none
	}{
		"private":                {file: 0o600, dir: 0o700, uid: me},
		"readable":               {file: 0o644, dir: 0o755, uid: me},
		"a link":                 {file: 0o644, dir: 0o755, link: true, uid: me},
		"written by the group":   {file: 0o664, dir: 0o755, uid: me, want: "chmod go-w"},
		"written by all":         {file: 0o666, dir: 0o755, uid: me, want: "chmod go-w"},
		"in a directory of all":  {file: 0o600, dir: 0o777, uid: me, want: "directory"},
		"a link, likewise":       {file: 0o600, dir: 0o777, link: true, uid: me, want: "directory"},
		"in a sticky directory":  {file: 0o600, dir: 0o777 | os.ModeSticky, uid: me},
		"of another user":        {file: 0o600, dir: 0o700, uid: 4242, want: "belongs to another user"},
		"root, and another user": {file: 0o600, dir: 0o700, uid: 0, want: "belongs to another user"},
	} {
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

// The same where a file is read: the settings of sregistry, which it leaves readable,
// are taken with a warning.
func TestLoad_trust(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o666: false, 0o620: false} {
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
		if (warning != "") != (mode == 0o644 || mode == 0o620) || (err != nil) != (mode == 0o666) {
			t.Errorf("sregistry, mode %#o: %q, %v", mode, warning, err)
		}
	}
}
