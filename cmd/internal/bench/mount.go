// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// nobody is the other user: uid and gid.
const nobody = 65534

// asNobody are the words before a command that the other user runs.
var asNobody = strings.Fields("setpriv --reuid=65534 --regid=65534 --clear-groups --")

// privateFuse gives the other user a device to mount with, in a mount namespace
// of its own: the machine's /dev/fuse stays as it is. What others have mounted is
// taken out of that namespace, or their daemons would not see the end of their
// mounts before ours. $1 is where the node is made; the rest is the command.
const privateFuse = `node=$1; shift
while read -r _ at type _; do
	case $type in fuse.*) umount -l "$at" ;; esac
done </proc/self/mounts
[ -e "$node" ] || mknod -m 666 "$node" c 10 229
mount --bind "$node" /dev/fuse
exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"`

// A home is the state of one user of sregfs: catalogue, cache, store, settings.
// Two homes share nothing. It outlives the daemons that are started on it.
type home struct {
	b       *bench
	dir     string
	remotes []string // "big=oci,url=http://…", for both programs
	other   bool     // everything runs as another user, who has no privileges
}

func (b *bench) newHome(other bool, remotes ...string) *home {
	h := &home{b, b.temp("home-"), remotes, other}
	check(os.WriteFile(h.path("config.toml"), nil, 0o600))
	if other {
		check(errors.Join(os.Chown(h.dir, nobody, nobody), os.Chown(h.path("config.toml"), nobody, nobody)))
	}
	return h
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

func (h *home) env() []string {
	return []string{
		"PATH=" + h.b.bin + ":" + os.Getenv("PATH"), "HOME=" + h.dir, "LC_ALL=C", "TZ=UTC", "TMPDIR=" + h.dir,
		"SREGFS_HOME=" + h.path("state"), "SREGFS_CACHE_DIR=" + h.path("cache"),
		"SREGISTRY_STORAGE=" + h.path("images"), "SREGFS_CONFIG=" + h.path("config.toml"),
	}
}

func (h *home) args(args ...string) []string {
	for _, r := range h.remotes {
		args = append(args, "--remote", r)
	}
	return args
}

// sreg runs the companion command and returns what it printed.
func (h *home) sreg(ctx context.Context, args ...string) string {
	words := append([]string{h.b.exe("sreg")}, h.args(args...)...)
	if h.other {
		words = slices.Concat(asNobody, words)
	}
	return output(ctx, h.env(), words...)
}

// A daemon is a mount and the process behind it: sregfs or rclone.
type daemon struct {
	dir  string   // mount point
	as   []string // words before a command that is to see the mount
	tree string   // of an image below the mount, for its repository and tag
	cmd  *exec.Cmd
	log  *os.File
}

// mount starts sregfs in the foreground with these flags besides the remotes',
// and returns when the mount answers. The caller stops it.
func (h *home) mount(ctx context.Context, flags ...string) *daemon {
	d := &daemon{dir: h.path("mnt"), tree: "lab/%s:%s.sif"}
	check(os.MkdirAll(d.dir, 0o755))
	words := append(append([]string{h.b.exe("sregfs"), "-f"}, h.args(flags...)...), d.dir)
	if h.other {
		check(os.Chown(d.dir, nobody, nobody))
		words = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", privateFuse, "sh", h.path("fuse")}, words...)
	}
	d.start(ctx, h.dir, h.env(), words...)
	if h.other {
		d.as = append([]string{"nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", d.pid()), "--"}, asNobody...)
	}
	return d
}

// rclone starts "rclone mount" of what rclone calls remote (":local:/dir"), with
// its full cache.
func (b *bench) rclone(ctx context.Context, remote string, flags ...string) *daemon {
	dir := b.temp("rclone-")
	d := &daemon{dir: filepath.Join(dir, "mnt"), tree: "%s/%s.sif"}
	check(os.Mkdir(d.dir, 0o755))
	words := []string{"rclone", "mount", "--config", "/dev/null", "--vfs-cache-mode", "full", "--cache-dir", filepath.Join(dir, "cache")}
	d.start(ctx, dir, append(os.Environ(), "HOME="+dir), append(append(words, flags...), remote, d.dir)...)
	return d
}

// start starts the process and waits until the kernel has the mount.
func (d *daemon) start(ctx context.Context, dir string, env []string, words ...string) {
	d.cmd, d.log = exec.CommandContext(ctx, words[0], words[1:]...), must(os.CreateTemp(dir, "log-"))
	d.cmd.Env, d.cmd.Stdout, d.cmd.Stderr = env, d.log, d.log
	// As a service manager would, so that stopping early does not leave a mount.
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = 20 * time.Second
	check(d.cmd.Start())
	for range 2000 {
		mounts, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", d.pid()))
		if strings.Contains(string(mounts), " "+d.dir+" ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	d.stop()
	check(fmt.Errorf("%s: nothing mounted at %s after 10 s\n%s", filepath.Base(words[0]), d.dir, d.logText()))
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

// path returns where something of the tree is; those who run under "as" see it
// there, too.
func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

// file returns where an image of a registry is.
func (d *daemon) file(img *image) string { return d.path(fmt.Sprintf(d.tree, img.repo, img.tag)) }

// stop ends the process; both programs unmount on SIGTERM.
func (d *daemon) stop() {
	if d.cmd.ProcessState != nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
	_ = exec.Command("fusermount3", "-uzq", d.dir).Run()
	_ = d.log.Close()
}

// logText returns what the daemon has said.
func (d *daemon) logText() string {
	text, _ := os.ReadFile(d.log.Name())
	return string(text)
}

// resident returns the memory of the daemon that the key VmRSS (now) or VmHWM
// (the most so far) of its status tells, in bytes.
func (d *daemon) resident(key string) int64 {
	return kilobytes(fmt.Sprintf("/proc/%d/status", d.pid()), key+":")
}

// removeScratch unmounts what a suite that broke off left mounted below $1, the
// inner ones first, and removes $1. It removes nothing while anything is mounted:
// what is below a mount is not ours.
const removeScratch = `below() { cut -d" " -f5 /proc/self/mountinfo | grep -F "$1/" | tac; }
below "$1" | xargs -rn1 fusermount3 -uzq || true
left=$(below "$1")
[ -z "$left" ] || { echo "$1 stays: still mounted are" $left >&2; exit 1; }
rm -rf "$1"`
