// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// notPosix are the tests of go-fuse's suite that do not hold here, and why.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "two locks of one process: it fails on tmpfs, too",
	"Link":                "no hard links (EPERM)",
	"LinkUnlinkRename":    "no hard links (EPERM)",
	"OpenAt":              "renames a directory (EXDEV)",
	"OpenSymlinkRace":     "no symbolic links (EPERM)",
	"RenameOpenDir":       "renames a directory (EXDEV)",
	"SetattrSymlink":      "no symbolic links (EPERM)",
	"SymlinkReadlink":     "no symbolic links (EPERM)",
	"Tmpfile":             "no files without a name (EOPNOTSUPP)",
	"XAttr":               "no attributes are stored (EOPNOTSUPP)",
	"XAttrLarge":          "no attributes are stored (EOPNOTSUPP)",
}

// The rest of the suite holds in a tool's directory, where files have any names.
func TestPosix(t *testing.T) {
	w := fsystest.New(t, fsystest.Options{})
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	for name := range notPosix {
		if posixtest.All[name] == nil {
			t.Errorf("%s is no test of the suite", name)
		}
	}
	for _, remote := range []string{"local", "web"} {
		for name := range posixtest.All {
			if notPosix[name] != "" {
				continue
			}
			// In another process: some tests open the mount with many threads.
			t.Run(remote+"/"+name, func(t *testing.T) {
				mnt := filepath.Join(dir, remote, "c", ".posix-"+name)
				fusetest.MustShell(t, dir, "mkdir -p "+mnt)
				cmd := child(t, "", "-test.run=^TestPosixChild$", "-test.v")
				cmd.Env = append(cmd.Env, "FUSEFS_TEST_POSIX="+name+":"+mnt)
				if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestPosixChild/"+name) {
					t.Errorf("%v: %s", err, out)
				}
			})
		}
	}
}

// TestPosixChild runs one test of the suite on a directory of TestPosix.
func TestPosixChild(t *testing.T) {
	name, mnt, ok := strings.Cut(os.Getenv("FUSEFS_TEST_POSIX"), ":")
	if !ok {
		return
	}
	t.Run(name, func(t *testing.T) { posixtest.All[name](t, mnt) })
}
