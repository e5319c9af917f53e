// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// flagsAt returns the options of what is mounted on dir, nil if nothing is.
func flagsAt(t *testing.T, dir string) []string {
	t.Helper()
	table, err := os.ReadFile("/proc/self/mounts")
	must(t, err)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); f[1] == dir {
			return strings.Split(f[3], ",")
		}
	}
	return nil
}

// unmount ends a mount and waits for its process.
func (w *world) unmount(dir string) {
	w.t.Helper()
	w.ok("fusermount3", "-u", dir)
	w.eventually("the process ends", func() bool { return w.status().Mount == "" })
}

// another returns the world of another user, who has the programs too. It is that of
// this user if nobody else can be.
func (w *world) another() *world {
	w.t.Helper()
	if os.Geteuid() != 0 {
		return w
	}
	nobody, err := user.Lookup("nobody")
	must(w.t, err)
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	for _, name := range []string{"sregfs", "sreg"} {
		program, err := os.ReadFile(binaries + "/" + name)
		must(w.t, err)
		must(w.t, os.WriteFile(w.path(name), program, 0o755))
	}
	must(w.t, os.Chmod(filepath.Dir(w.dir), 0o755))
	must(w.t, os.MkdirAll(w.path("mnt"), 0o755))
	must(w.t, filepath.Walk(w.dir, func(path string, _ os.FileInfo, err error) error {
		return errors.Join(err, os.Lchown(path, uid, gid))
	}))
	theirs := *w
	theirs.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	theirs.env = append(slices.Clone(w.env), "PATH="+w.dir+":"+os.Getenv("PATH"))
	return &theirs
}

// Each option that restricts is applied, by root's mount(2) and by a user's
// fusermount3; one that cannot be is refused by name.
func TestMountOptions(t *testing.T) {
	t.Parallel()
	for name, who := range map[string]func(*world) *world{
		"root": func(w *world) *world { return w },
		"user": (*world).another,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			must(t, os.MkdirAll(w.path("mnt"), 0o755))
			w.ok("sreg", "add", greet, "demo/greet:1")
			w = who(w)
			dir := w.path("mnt")
			for option, want := range map[string]string{
				"noexec": "noexec", "user": "noexec", "users": "noexec", "user=me": "noexec", "noexec,exec": "", "user,exec": "",
				"exec,user": "noexec", "owner": "", "group": "", "ro": "ro", "sync": "sync", "dirsync": "dirsync",
				"suid,dev,atime,relatime,strictatime,nofail,_netdev,x-y=z,X-mount.mkdir,comment=c,nosymfollow,defaults,auto,noauto": "",
			} {
				w.ok("sregfs", "-o", option, dir)
				got := flagsAt(t, dir)
				for _, always := range []string{"nosuid", "nodev", "noatime"} {
					if !slices.Contains(got, always) {
						t.Errorf("-o %s: mounted with %q, without %s", option, got, always)
					}
				}
				for _, one := range []string{"noexec", "ro", "sync", "dirsync"} {
					if slices.Contains(got, one) != (one == want) {
						t.Errorf("-o %s: mounted with %q, want %q", option, got, want)
					}
				}
				r := w.run("sh", "-c", `"$0"`, filepath.Join(dir, "local/demo/greet:1.sif"))
				if refused := strings.Contains(r.err, "greet:1.sif: Permission denied"); refused != (want == "noexec") {
					t.Errorf("-o %s: executing an image: %q", option, r.err)
				}
				w.ok("cat", filepath.Join(dir, "local/demo/greet:1.sif"))
				w.unmount(dir)
			}
			for option, want := range map[string]string{
				"context=system_u:object_r:x_t:s0": "-o context: ", "fscontext=a": "-o fscontext: ", "defcontext=a": "-o defcontext: ",
				"rootcontext=a": "-o rootcontext: ", "remount,ro": "-o remount: ", "bind": "-o bind: ", "mand": "-o mand: ", "quota": "-o quota: ",
				"acl": "-o acl: ", "noexce": `(did you mean "noexec"?)`,
			} {
				if r := w.run("sregfs", "-o", option, dir); r.code != 2 || !strings.Contains(r.err, want) {
					t.Errorf("-o %s: exit %d, %q, want %q", option, r.code, r.err, want)
				}
			}
		})
	}
}

// A line of fstab, through mount(8) and mount.fuse3.
func TestFstab(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "mount.fuse3")
	if os.Geteuid() != 0 {
		t.Skip("only root may name another fstab")
	}
	w := newWorld(t)
	w.ok("sreg", "add", greet, "demo/greet:1")
	dir, table := w.path("mnt"), w.path("fstab")
	for options, want := range map[string]string{
		"defaults": "", "noexec": "noexec", "user": "noexec", "users": "noexec", "user,exec": "", "owner": "", "ro,_netdev,nofail": "ro",
		"X-mount.mkdir,x-systemd.automount": "", "context=system_u:object_r:x_t:s0": "",
	} {
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(table, []byte(fmt.Sprintf("%s/sregfs#images %s fuse %s 0 0\n", binaries, dir, options)), 0o600))
		w.ok("mount", "-T", table, dir)
		got := flagsAt(t, dir)
		for _, one := range []string{"noexec", "ro"} {
			if slices.Contains(got, one) != (one == want) {
				t.Errorf("%s: mounted with %q, want %q", options, got, want)
			}
		}
		w.ok("mount", "-i", "-o", "remount,bind,ro", dir) // as the message for "remount" says
		if got := flagsAt(t, dir); !slices.Contains(got, "ro") {
			t.Errorf("after mount -i -o remount,bind,ro: %q", got)
		}
		w.unmount(dir)
	}
}

// Whoever started us has made the mount, and hands /dev/fuse over.
func TestHandedMount(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may call mount(2)")
	}
	w := newWorld(t)
	w.ok("sreg", "add", greet, "demo/greet:1")
	for _, way := range []string{"foreground", "background", "systemd"} {
		dir := w.path("mnt-" + way)
		must(t, os.Mkdir(dir, 0o755))
		device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
		must(t, err)
		options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions", device.Fd())
		must(t, unix.Mount("sregfs", dir, "fuse.sregfs", unix.MS_NOSUID|unix.MS_NODEV, options))
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		cmd := exec.Command(binaries+"/sregfs", "/dev/fd/3")
		cmd.Env, cmd.ExtraFiles = w.env, []*os.File{device}
		log, err := os.Create(w.path("log-" + way))
		must(t, err)
		cmd.Stdout, cmd.Stderr = log, log
		switch way {
		case "systemd":
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.path("notify"), Net: "unixgram"})
			must(t, err)
			defer socket.Close()
			cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+w.path("notify"))
			fallthrough
		case "foreground":
			cmd.Args = append(cmd.Args, "-f")
		}
		must(t, cmd.Start())
		must(t, device.Close())
		if way == "background" {
			must(t, within(t, "the starter", time.Minute, cmd))
		}
		w.eventually("sreg reaches it", func() bool { return w.status().Mount != "" })
		w.ok("cmp", greet, filepath.Join(dir, "local/demo/greet:1.sif"))
		must(t, unix.Unmount(dir, 0)) // nobody has the device but the program
		if way != "background" {
			must(t, within(t, "sregfs", time.Minute, cmd))
		}
		w.eventually("the process ends", func() bool { return w.status().Mount == "" })
	}
	null, err := os.Open("/dev/null")
	must(t, err)
	defer null.Close()
	cmd := exec.Command(binaries+"/sregfs", "/dev/fd/3")
	cmd.Env, cmd.ExtraFiles = w.env, []*os.File{null}
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), "no /dev/fuse") {
		t.Errorf("another file: %q", out)
	}
	if r := w.run("sregfs", "/dev/fd/77"); r.code != 2 || !strings.Contains(r.err, "handed over") {
		t.Errorf("no file: exit %d, %q", r.code, r.err)
	}
	if r := w.run("mount.fuse3", "sregfs#", w.path("mnt-systemd"), "-o", "drop_privileges"); r.code != 0 {
		t.Errorf("mount.fuse3 -o drop_privileges: exit %d, %q", r.code, r.err)
	}
	w.ok("cmp", greet, w.path("mnt-systemd/local/demo/greet:1.sif"))
	w.unmount(w.path("mnt-systemd"))
}

// What whoever started it has open is not kept open: a lock above all.
func TestInheritedFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	must(t, os.MkdirAll(w.path("mnt"), 0o755))
	for _, way := range []string{"sregfs $D", "sregfs -f $D & while ! mountpoint -q $D; do sleep 0.02; done"} {
		script := "exec 8>$D.lock 3>&1; flock 8; " + strings.ReplaceAll(way, "sregfs", binaries+"/sregfs")
		w.env = append(w.env, "D="+w.path("mnt"))
		cmd := exec.Command("sh", "-c", script+" >$D.log 2>&1")
		if strings.Contains(way, "&") {
			cmd = exec.Command("sh", "-c", strings.Replace(script, " &", " >$D.log 2>&1 &", 1))
		}
		cmd.Env = w.env
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		// The pipe is descriptor 3 of the program: it ends when the shell does.
		_, err = out.Read(make([]byte, 1))
		if err == nil {
			t.Error("the program writes to an inherited file")
		}
		must(t, within(t, "the shell", time.Minute, cmd))
		w.ok("flock", "-n", w.path("mnt.lock"), "true")
		w.eventually("sreg reaches it", func() bool { return w.status().Mount != "" })
		w.unmount(w.path("mnt"))
	}
}
