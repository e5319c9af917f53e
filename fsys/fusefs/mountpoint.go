// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends"
)

const (
	fsName = "sregfs" // the subtype: fuse.sregfs in /proc/mounts
	fsType = "fuse." + fsName
	// probeTime is how long a mount of ours may take to answer.
	probeTime = 3 * time.Second
)

// Check finds out early why mounting would fail, and removes a dead mount of ours. It
// returns the absolute path of the mount point. Errors: those of Mount.
func Check(ctx context.Context, mountpoint string, opts Options) (string, error) {
	if isInherited(mountpoint) {
		return mountpoint, checkInherited(mountpoint, opts)
	}
	path, err := checkMountpoint(ctx, mountpoint)
	if err != nil {
		return "", err
	}
	return path, checkFUSE(opts)
}

// inheritedPrefix begins a mount point that is the number of an open /dev/fuse: our parent
// process has mounted it somewhere (libfuse 3 and go-fuse have this form).
const inheritedPrefix = "/dev/fd/"

func isInherited(mountpoint string) bool {
	_, err := strconv.Atoi(strings.TrimPrefix(mountpoint, inheritedPrefix))
	return err == nil && strings.HasPrefix(mountpoint, inheritedPrefix)
}

// checkInherited checks that the descriptor is a /dev/fuse, and that no option is set that
// only the process which mounted it could have applied.
func checkInherited(mountpoint string, opts Options) error {
	fd, _ := strconv.Atoi(strings.TrimPrefix(mountpoint, inheritedPrefix))
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return fmt.Errorf("%s: %w: no such descriptor was handed over", mountpoint, fs.ErrInvalid)
	}
	// char device 10:229, Documentation/admin-guide/devices.txt
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(10, 229) {
		return fmt.Errorf("%s: %w: it is no /dev/fuse", mountpoint, fs.ErrInvalid)
	}
	if f := opts.MountFlags; f.NoExec || f.Sync || f.DirSync || len(f.Labels) > 0 {
		return fmt.Errorf("%s: %w: noexec, sync and labels can be set only by the program that mounted it", mountpoint, fs.ErrInvalid)
	}
	return nil
}

// checkMountpoint returns the absolute path of a directory that can be mounted on. It
// accesses the path only if the kernel's table has no mount of ours there, because a dead
// one could hang this process.
func checkMountpoint(ctx context.Context, path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(abs)); err == nil && abs != "/" {
		abs = filepath.Join(parent, filepath.Base(abs))
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	if entry, ok := findMount(string(table), abs); ok && entry.fsType == fsType {
		if alive(ctx, abs) {
			return "", fmt.Errorf("%s: %w; `sreg status` tells by whom, `fusermount3 -u` ends it", abs, ErrMounted)
		}
		if err := unmount(abs, true); err != nil {
			return "", fmt.Errorf("%s: a dead mount is there and cannot be removed: %w", abs, err)
		}
	}
	return abs, checkDirectory(abs)
}

func checkDirectory(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return backends.NotFound("%s is not there (make it with mkdir -p)", path)
	case errors.Is(err, syscall.ENOTCONN):
		return fmt.Errorf("%s: %w: a file system that has died is mounted there (fusermount3 -uz removes it)", path, fs.ErrInvalid)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: %w: not a directory", path, fs.ErrInvalid)
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if names, _ := dir.Readdirnames(1); len(names) > 0 {
		return backends.Saying(fs.ErrExist, "%s is not empty: mounting would hide what it holds", path)
	}
	if os.Geteuid() != 0 && unix.Access(path, unix.W_OK) != nil {
		return fmt.Errorf("%s: %w: mounting needs a directory that you can write to", path, fs.ErrPermission)
	}
	return nil
}

// alive reports whether a mount answers. It uses statfs, which the kernel never answers
// from a cache. If the mount hangs, the goroutine ends with the mount.
func alive(ctx context.Context, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		// Not stat(2): the kernel may still have the attributes of a dead mount cached.
		var st syscall.Statfs_t
		answer <- syscall.Statfs(path, &st)
	}()
	select {
	case err := <-answer:
		// A mount that is alive gives EACCES to users without access; a dead one gives
		// ENOTCONN to its owner.
		return !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.EIO)
	case <-ctx.Done():
		return true // it hangs, so its process exists
	}
}

// A mountEntry is one line of mountinfo.
type mountEntry struct {
	device  string // "major:minor"
	point   string
	fsType  string
	options string // of the file system
}

// findMount returns what is mounted on a path: the last line for it counts.
func findMount(table, path string) (mountEntry, bool) {
	var found mountEntry
	lines := bufio.NewScanner(strings.NewReader(table))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if e, ok := parseMount(lines.Text()); ok && e.point == path {
			found = e
		}
	}
	return found, found.point != ""
}

// parseMount reads a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
func parseMount(line string) (mountEntry, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 5 || len(rest) < 1 {
		return mountEntry{}, false
	}
	return mountEntry{device: fields[2], point: unescapeMount(fields[4]), fsType: rest[0], options: rest[len(rest)-1]}, true
}

// unescapeMount undoes the kernel's octal escapes of blanks and backslashes.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// checkFUSE finds problems that would otherwise fail later with an unclear message.
func checkFUSE(opts Options) error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return fmt.Errorf("%w: /dev/fuse is missing: load the kernel module (modprobe fuse), or start the container with --device /dev/fuse",
			errors.ErrUnsupported)
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
		return fmt.Errorf("%w: /dev/fuse cannot be opened by this user (as root: chmod 666 /dev/fuse)", fs.ErrPermission)
	}
	if !haveFusermount() {
		return fmt.Errorf("%w: fusermount3 is not installed (package fuse3)", errors.ErrUnsupported)
	}
	if opts.AllowOther && !userAllowOther("/etc/fuse.conf") {
		return fmt.Errorf("%w: --allow-other needs a line \"user_allow_other\" in /etc/fuse.conf", fs.ErrPermission)
	}
	return nil
}

func userAllowOther(conf string) bool {
	text, err := os.ReadFile(conf)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

func haveFusermount() bool {
	_, err := exec.LookPath("fusermount3")
	return err == nil
}

// unmount unmounts a path: with umount(2) if permitted, else with fusermount3.
func unmount(path string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	args := []string{"-u", "--", path}
	if lazy {
		flags |= unix.MNT_DETACH
		args[0] = "-uz"
	}
	err := unix.Unmount(path, flags)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s: %w: files are open there", path, ErrBusy)
	case !errors.Is(err, syscall.EPERM):
		return fmt.Errorf("unmounting %s: %v", path, err)
	}
	out, err := exec.Command("fusermount3", args...).CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if _, mounted := findMountNow(path); mounted && !lazy {
		return fmt.Errorf("%s: %w: %s", path, ErrBusy, text)
	}
	return fmt.Errorf("unmounting %s: %v: %s", path, err, text)
}

// Unmount unmounts the file system of ours on a path; lazy does it also while files are open
// there, or when its process is gone.
//
// Errors: fs.ErrNotExist if none is mounted there; ErrBusy.
func Unmount(path string, lazy bool) error {
	if !IsMounted(path) {
		return backends.NotFound("no sregfs is mounted at %s", path)
	}
	return unmount(path, lazy)
}

// Dead returns where file systems of ours are mounted whose process has ended without
// unmounting them.
func Dead(ctx context.Context) []string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return DeadIn(ctx, string(table))
}

// DeadIn is Dead of those in a table like /proc/self/mountinfo (proc_pid_mountinfo(5)).
func DeadIn(ctx context.Context, table string) []string {
	var all []string
	for line := range strings.Lines(table) {
		if e, ok := parseMount(line); ok && e.fsType == fsType && !alive(ctx, e.point) {
			all = append(all, e.point)
		}
	}
	return all
}

// IsMounted reports whether a file system of ours, dead or alive, is mounted on a path.
func IsMounted(path string) bool {
	entry, ok := findMountNow(path)
	return ok && entry.fsType == fsType
}

// Owner returns who has mounted the file system of ours on a path, as the kernel knows it.
func Owner(path string) (uid int, ok bool) {
	entry, ok := findMountNow(path)
	if !ok || entry.fsType != fsType {
		return 0, false
	}
	for option := range strings.SplitSeq(entry.options, ",") {
		if text, is := strings.CutPrefix(option, "user_id="); is {
			uid, err := strconv.Atoi(text)
			return uid, err == nil
		}
	}
	return 0, false
}

func findMountNow(path string) (mountEntry, bool) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return mountEntry{}, false
	}
	return findMount(string(table), path)
}

// readAheadKB is the kernel's read-ahead in KiB. With its default, 128, each request would
// be of 128 KiB.
const readAheadKB = "4096"

// raiseReadAhead raises the mount's read-ahead if permitted, and returns its value. FUSE's
// own protocol can only lower it.
func raiseReadAhead(device string) string {
	if device == "" {
		return "unknown"
	}
	file := "/sys/class/bdi/" + device + "/read_ahead_kb"
	os.WriteFile(file, []byte(readAheadKB), 0) //nolint:errcheck // not permitted to users; the result is read back
	now, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(now)) + " KiB"
}

// stackDepth allows backing files on overlayfs (the disk of a container), which counts as
// one more layer.
func stackDepth(disk string) int {
	var st unix.Statfs_t
	if unix.Statfs(disk, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return 2
	}
	return 1
}
