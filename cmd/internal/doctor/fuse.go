// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/fsys/fusefs"
)

// device is whether /dev/fuse can be opened.
func (m Machine) device() Finding {
	const check = "fuse device"
	path := m.path("/dev/fuse")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(check, path+" does not exist", "modprobe fuse; of a container: start it with --device /dev/fuse")
	case errors.Is(err, fs.ErrPermission):
		return fail(check, path+" may not be opened by this user", "chmod 666 "+path+"; of a container: --device /dev/fuse, and --cap-add SYS_ADMIN for root")
	case err != nil:
		return fail(check, err.Error(), "modprobe fuse")
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode()&fs.ModeCharDevice == 0 {
		return fail(check, path+" is no device", "rm "+path+"; mknod -m 666 "+path+" c 10 229")
	}
	return ok(check, path)
}

// helper is whether fusermount3 is there, and may mount for users.
func (m Machine) helper() Finding {
	const check, install = "fusermount3", "install the package fuse3"
	path, err := m.LookPath("fusermount3")
	switch {
	case err != nil && m.UID == 0:
		return warn(check, "not in $PATH: root mounts without it, nobody else does", install)
	case err != nil:
		return fail(check, "not in $PATH", install)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fail(check, err.Error(), install)
	case m.UID != 0 && (info.Mode()&fs.ModeSetuid == 0 || !ownedByRoot(info)):
		return fail(check, path+" is not setuid root, so only root mounts", "chown root "+path+"; chmod 4755 "+path)
	}
	return ok(check, path)
}

// otherUsers is whether a user may mount for others, if that is wanted.
func (m Machine) otherUsers() Finding {
	const check = "fuse.conf"
	allowed := slices.Contains(lines(m.read("/etc/fuse.conf")), "user_allow_other")
	switch {
	case allowed:
		return ok(check, "user_allow_other is set")
	case m.UID == 0:
		return ok(check, "root needs no user_allow_other")
	case m.AllowOther:
		return fail(check, "allow_other is set, and "+m.path("/etc/fuse.conf")+" has no user_allow_other", "add a line user_allow_other to it, or mount as root")
	}
	return ok(check, "user_allow_other is not set: needed for --allow-other only")
}

// passthrough is whether the kernel reads whole images without us.
func (m Machine) passthrough() Finding {
	const check = "passthrough"
	release, _, _ := strings.Cut(m.read("/proc/sys/kernel/osrelease"), "\n")
	var major, minor int
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
	switch {
	case major < 6 || major == 6 && minor < 9:
		return warn(check, "Linux "+release+" reads whole images through sregfs", "Linux 6.9 or newer reads them at the speed of the disk, for a mount of root's")
	case m.UID != 0:
		return ok(check, "Linux "+release+" has it for mounts of root; this user's are read through sregfs")
	}
	return ok(check, "Linux "+release)
}

// deadMounts are mount points whose process is gone.
func (m Machine) deadMounts(ctx context.Context) (all []Finding) {
	for _, at := range fusefs.DeadIn(ctx, m.read("/proc/self/mountinfo")) {
		all = append(all, fail("dead mount", at+": its process is gone", fmt.Sprintf("sreg unmount %[1]s, or sregfs %[1]s, which takes it over", at)))
	}
	if len(all) == 0 {
		all = append(all, ok("dead mount", "there is none"))
	}
	return all
}

// locate is whether the nightly index of file names leaves the mount alone.
func (m Machine) locate() Finding {
	const check, file = "updatedb", "/etc/updatedb.conf"
	text := m.read(file)
	if text == "" {
		return ok(check, "there is no "+m.path(file))
	}
	for _, line := range lines(text) {
		name, value, _ := strings.Cut(line, "=")
		words := strings.Fields(strings.Trim(strings.TrimSpace(value), `"`))
		switch name = strings.TrimSpace(name); {
		case name == "PRUNEFS" && slices.Contains(words, "fuse.sregfs"),
			name == "PRUNEPATHS" && m.Mount != "" && slices.Contains(words, m.Mount):
			return ok(check, "it does not search mounts of sregfs")
		}
	}
	return warn(check, "updatedb walks through every registry each night", "add fuse.sregfs to PRUNEFS in "+m.path(file))
}
