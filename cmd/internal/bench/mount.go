// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// nobody is the other user: uid and gid.
const nobody = 65534

// A home is the state of one user of sregfs: catalogue, cache, store, settings.
// Two homes share nothing. It outlives the daemons that are started on it.
type home struct {
	b       *bench
	dir     string
	storage string   // SREGISTRY_STORAGE; may be set before the first start
	remotes []string // "big=oci,url=http://…", for both programs
	other   bool     // everything runs as another user, who has no privileges
}

// newHome makes an empty home with these remotes.
func (b *bench) newHome(remotes ...string) (*home, error) {
	dir, err := b.temp("home-")
	if err != nil {
		return nil, err
	}
	return &home{b: b, dir: dir, storage: filepath.Join(dir, "images"), remotes: remotes},
		os.WriteFile(filepath.Join(dir, "config.toml"), nil, 0o600)
}

// otherHome makes a home of the user nobody.
func (b *bench) otherHome(remotes ...string) (*home, error) {
	h, err := b.newHome(remotes...)
	if err != nil {
		return nil, err
	}
	h.other = true
	return h, errors.Join(os.Chown(h.dir, nobody, nobody), os.Chown(h.path("config.toml"), nobody, nobody))
}

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

func (h *home) env() []string {
	return []string{
		"PATH=" + h.b.bin + ":" + os.Getenv("PATH"), "HOME=" + h.dir, "LC_ALL=C", "TZ=UTC", "TMPDIR=" + h.dir,
		"SREGFS_HOME=" + h.path("state"), "SREGFS_CACHE_DIR=" + h.path("cache"),
		"SREGISTRY_STORAGE=" + h.storage, "SREGFS_CONFIG=" + h.path("config.toml"),
	}
}

func (h *home) args(args ...string) []string {
	for _, r := range h.remotes {
		args = append(args, "--remote", r)
	}
	return args
}

// sreg runs the companion command and returns what it printed.
func (h *home) sreg(ctx context.Context, args ...string) (string, error) {
	words := append([]string{h.b.exe("sreg")}, h.args(args...)...)
	if h.other {
		words = append(slices.Clone(asNobody), words...)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = h.env()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("sreg %s: %v\n%s", strings.Join(args, " "), err, errs.Bytes())
	}
	return out.String(), nil
}

// A daemon is a mount and the process behind it: sregfs or rclone.
type daemon struct {
	name string
	dir  string   // mount point
	as   []string // words before a command that is to see the mount
	cmd  *exec.Cmd
	log  *os.File
}

// mount starts sregfs in the foreground with these flags besides the remotes',
// and returns when the mount answers. The caller stops it.
func (h *home) mount(ctx context.Context, name string, flags ...string) (*daemon, error) {
	dir := h.path("mnt")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	args := append([]string{h.b.exe("sregfs"), "-f"}, h.args(flags...)...)
	args = append(args, dir)
	d := &daemon{name: name, dir: dir}
	if h.other {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, err
		}
		args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c", privateFuse, "sh", h.path("fuse")}, args...)
	}
	d.cmd = exec.CommandContext(ctx, args[0], args[1:]...)
	d.cmd.Env = h.env()
	if err := d.start(h.path("")); err != nil {
		return nil, err
	}
	if h.other {
		d.as = append([]string{"nsenter", "--mount=/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/ns/mnt", "--"}, asNobody...)
	}
	return d, nil
}

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

var asNobody = []string{"setpriv", "--reuid=" + strconv.Itoa(nobody), "--regid=" + strconv.Itoa(nobody), "--clear-groups", "--"}

// rclone starts "rclone mount" of what rclone calls remote (":local:/dir"), with
// its full cache.
func (b *bench) rclone(ctx context.Context, remote string, flags ...string) (*daemon, error) {
	dir, err := b.temp("rclone-")
	if err != nil {
		return nil, err
	}
	d := &daemon{name: "rclone", dir: filepath.Join(dir, "mnt")}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return nil, err
	}
	args := append([]string{"mount", "--config", "/dev/null", "--vfs-cache-mode", "full", "--cache-dir", filepath.Join(dir, "cache")}, flags...)
	d.cmd = exec.CommandContext(ctx, "rclone", append(args, remote, d.dir)...)
	d.cmd.Env = append(os.Environ(), "HOME="+dir)
	return d, d.start(dir)
}

// start starts the process and waits until the kernel has the mount.
func (d *daemon) start(dir string) (err error) {
	if d.log, err = os.CreateTemp(dir, "log-"); err != nil {
		return err
	}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	// As a service manager would, so that stopping early does not leave a mount.
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = 20 * time.Second
	if err := d.cmd.Start(); err != nil {
		return err
	}
	table := "/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/mountinfo"
	for range 2000 {
		mounts, _ := os.ReadFile(table)
		if strings.Contains(string(mounts), " "+d.dir+" ") {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	text, _ := os.ReadFile(d.log.Name())
	d.stop()
	return fmt.Errorf("%s: nothing mounted at %s after 10 s\n%s", d.name, d.dir, text)
}

// path returns where something of the tree is; those who run under "as" see it
// there, too.
func (d *daemon) path(name string) string { return filepath.Join(d.dir, name) }

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

// rss returns the resident memory of the daemon, in bytes.
func (d *daemon) rss() (int64, error) { return d.status("VmRSS:") }

// peakRSS returns the most that the daemon has had resident, in bytes.
func (d *daemon) peakRSS() (int64, error) { return d.status("VmHWM:") }

func (d *daemon) status(key string) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == key {
			kib, err := strconv.ParseInt(f[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s: no %s in its status", d.name, key)
}

// removeScratch unmounts what a suite that broke off left mounted below dir, and
// removes dir. It removes nothing while anything is mounted: what is below a
// mount is not ours.
func removeScratch(dir string) error {
	for _, at := range mountsBelow(dir) {
		_ = exec.Command("fusermount3", "-uzq", at).Run()
	}
	if left := mountsBelow(dir); len(left) > 0 {
		return fmt.Errorf("%s stays: still mounted are %s", dir, strings.Join(left, ", "))
	}
	return os.RemoveAll(dir)
}

func mountsBelow(dir string) []string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{dir + " (unknown: " + err.Error() + ")"}
	}
	var below []string
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			below = append(below, f[4])
		}
	}
	slices.Reverse(below) // the inner ones first
	return below
}
