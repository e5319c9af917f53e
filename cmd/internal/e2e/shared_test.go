// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// The members of a group, and the group. None of them need have a name.
const (
	anna, bert = 61001, 61002
	members    = 61000
)

// newStore makes a world whose store is the group's, as a site would set it up:
// setgid, and every member's umask is 002.
func newStore(t *testing.T) *world {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("SREGFS_NOSKIP") == "1" {
			t.Fatal("SREGFS_NOSKIP=1, but only root can be several users")
		}
		t.Skip("only root can be several users")
	}
	w := newWorld(t)
	for dir := w.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.Chmod(binaries, 0o755))
	must(t, os.Chmod(w.path("config.toml"), 0o644))
	must(t, os.Mkdir(w.path("images"), 0o775))
	must(t, os.Chown(w.path("images"), 0, members))
	must(t, os.Chmod(w.path("images"), 0o775|fs.ModeSetgid))
	image, err := os.ReadFile(greet)
	must(t, err)
	must(t, os.WriteFile(w.path("i.sif"), image, 0o644))
	return w
}

// as runs sreg as a member with a state of his own.
func (w *world) as(uid uint32, args ...string) result {
	w.t.Helper()
	home := w.path(fmt.Sprint("home", uid))
	must(w.t, os.MkdirAll(home, 0o700))
	must(w.t, os.Chown(home, int(uid), int(uid)))
	cmd := exec.Command("sh", append([]string{"-c", `umask 002; exec "$0" "$@"`, binaries + "/sreg"}, args...)...)
	cmd.Dir = home
	cmd.Env = append(w.env[:len(w.env):len(w.env)], "HOME="+home, "SREGFS_HOME="+home+"/state", "SREGFS_CACHE_DIR="+home+"/cache")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{members}}}
	var out, err strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &err
	_ = cmd.Run()
	return result{out.String(), err.String(), cmd.ProcessState.ExitCode()}
}

func (w *world) okAs(uid uint32, args ...string) string {
	w.t.Helper()
	r := w.as(uid, args...)
	if r.code != 0 {
		w.t.Errorf("uid %d: sreg %q: exit %d\n%s%s", uid, args, r.code, r.out, r.err)
	}
	return r.out
}

// What one member of a group stores, the others can use, replace and remove; what
// is only his own is shut.
func TestSharedStore(t *testing.T) {
	t.Parallel()
	w := newStore(t)
	w.okAs(anna, "add", w.path("i.sif"), "tools/greet:1")
	w.okAs(bert, "get", "tools/greet:1")
	if out := w.okAs(bert, "images"); !strings.Contains(out, "tools/greet:1") {
		t.Errorf("images of the other member: %q", out)
	}
	w.okAs(bert, "add", w.path("i.sif"), "tools/greet:1") // the same bytes
	w.okAs(bert, "add", w.path("i.sif"), "tools/greet:2")
	w.okAs(bert, "add", w.path("i.sif"), "other/greet:1")
	w.okAs(bert, "rm", "--yes", "tools/greet:1")
	w.okAs(anna, "add", "--force", w.path("i.sif"), "other/greet:1")
	for _, uid := range []int{anna, bert} {
		for _, dir := range []string{"state", "cache"} {
			info, err := os.Stat(w.path(fmt.Sprintf("home%d/%s", uid, dir)))
			if err == nil && info.Mode().Perm() != 0o700 {
				t.Errorf("%s of %d is open to others: %v", dir, uid, info.Mode())
			}
		}
	}
}

// A file that is copied through a mount into the store is the group's as well,
// although it was a private draft before.
func TestSharedStore_mount(t *testing.T) {
	t.Parallel()
	w := newStore(t)
	w.umask = "002"
	m := w.mount()
	w.ok("mkdir", m.path("local/tools"))
	w.ok("cp", w.path("i.sif"), m.path("local/tools/greet:1.sif"))
	err := filepath.WalkDir(w.path("images"), func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		info, err := e.Info()
		must(t, err)
		mode, st := info.Mode(), info.Sys().(*syscall.Stat_t)
		if st.Gid != members || mode.Perm()&0o060 != 0o060 || mode.Perm()&0o002 != 0 || mode.IsDir() && mode&fs.ModeSetgid == 0 {
			t.Errorf("%s: %v, group %d", path, mode, st.Gid)
		}
		return nil
	})
	must(t, err)
	w.okAs(bert, "rm", "--yes", "tools/greet:1")
	for _, private := range []string{"state", "state/spool", "state/index", "cache"} {
		if info, err := os.Stat(w.path(private)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", private, info.Mode(), err)
		}
	}
}

// Copies for the user have the permissions that his umask leaves, whichever process
// writes them; and the mount has those that it was told.
func TestUmask(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("demo/a", "1", randomBytes(2<<20), nil)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	check := func(umask string, file, dir os.FileMode) {
		t.Helper()
		to := w.path("to" + umask)
		must(t, os.MkdirAll(to, 0o755))
		script := `umask ` + umask + `; sreg --remote lab=oci,url=` + reg.URL + ` pull lab://demo/a:1 ` + to + `/p.sif && sreg --remote lab=oci,url=` + reg.URL + ` warm --to ` + to + ` lab://demo/a:1`
		w.ok("sh", "-c", script)
		var files int
		must(t, filepath.WalkDir(to, func(path string, e os.DirEntry, err error) error {
			must(t, err)
			info, err := e.Info()
			must(t, err)
			if want := map[bool]os.FileMode{true: dir, false: file}[e.IsDir()]; path != to && info.Mode().Perm() != want {
				t.Errorf("umask %s: %s has mode %v, want %v", umask, path, info.Mode(), want)
			}
			if !e.IsDir() {
				files++
			}
			return nil
		}))
		if files != 2 {
			t.Errorf("%d files", files)
		}
	}
	check("077", 0o700, 0o700)
	m := w.mount("--umask=027")
	check("027", 0o750, 0o750)
	check("002", 0o775, 0o775)
	for path, want := range map[string]os.FileMode{"lab/demo/a:1.sif": 0o550, "lab": 0o750, "local": 0o750, "": 0o550} {
		if info, err := os.Stat(m.path(path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q in the mount: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

// A mount that is stopped is noticed, and the message says which process it is.
func TestStoppedMount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m := w.mount()
	must(t, m.cmd.Process.Signal(syscall.SIGSTOP))
	defer func() { must(t, m.cmd.Process.Signal(syscall.SIGCONT)) }()
	var stderr strings.Builder
	sreg := exec.Command(binaries+"/sreg", "status")
	sreg.Env, sreg.Stderr = w.env, &stderr
	must(t, sreg.Start())
	err := within(t, "sreg", time.Minute, sreg)
	if want := fmt.Sprintf("kill -CONT %d", m.cmd.Process.Pid); sreg.ProcessState.ExitCode() != 5 || !strings.Contains(stderr.String(), want) {
		t.Errorf("sreg status: %v, %q, want %q", err, &stderr, want)
	}
}
