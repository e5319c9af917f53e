// SPDX-License-Identifier: Apache-2.0

//go:build linux

package badger_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// ext4 mounts a small disk with a journal, as state directories are on, and
// returns what makes the kernel find an error of it.
func ext4(t *testing.T) (dir string, fail func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "only root can mount a disk")
	}
	disk, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	run("truncate", "-s", "256M", disk)
	run("mkfs.ext4", "-q", disk)
	run("mount", "-o", "loop", disk, dir)
	t.Cleanup(func() { run("umount", "-l", dir) }) // children are ended by a later cleanup
	return dir, func() { run("mount", "-o", "remount,abort", dir) }
}

// A disk that fails under the index takes changes no more; reading goes on, and the
// end comes, although Badger cannot write its tables.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	disk, fail := ext4(t)
	c := start(t, filepath.Join(disk, "state", "index"))
	c.must(t, "ok", "put 0 20000 1")
	fail()
	await(t, "changes to be refused", func() bool { return c.do("put 0 1 1") == "EROFS" })
	c.must(t, "right=20000 old=0 missing=0 wrong=0", "get 0 20000 1")
	hung := time.AfterFunc(time.Minute, func() { _ = c.cmd.Process.Kill() })
	if answer := c.do("close"); answer == "" {
		t.Errorf("the index does not close\n%s", head(c.stderr.String()))
	}
	hung.Stop()
}

// A process that may not open enough files says so, and the index stays where and as
// it is.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state", "index")
	c := start(t, dir)
	c.must(t, "ok", "put 0 60000 1")
	c.must(t, "ok", "close")
	c.end()
	refused, opened := 0, false
	for limit := 12; limit < 400; limit += 4 {
		c := startCommand(t, dir, exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0"`, limit), os.Args[0]))
		switch c.opened {
		case "open damaged: false":
			opened = true
			c.must(t, "right=60000 old=0 missing=0 wrong=0", "get 0 60000 1")
			c.kill()
		case "EMFILE":
			refused++
			c.end()
		case "": // too few for the runtime itself
			c.end()
		default:
			t.Errorf("with %d files: %q\n%s", limit, c.opened, head(c.stderr.String()))
		}
		aside, err := filepath.Glob(dir + ".bad-*")
		if err != nil || len(aside) > 0 {
			t.Fatalf("with %d files the index was moved aside: %v %v\n%s", limit, aside, err, head(c.stderr.String()))
		}
		if opened {
			break
		}
	}
	if refused == 0 || !opened {
		t.Errorf("refused %d times, then opened: %v", refused, opened)
	}
}
