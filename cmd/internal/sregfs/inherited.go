// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"os"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

// fdPrefix is how a mount point begins that is no directory but the number of an open
// /dev/fuse, which whoever started us has mounted: as mount.fuse3(8) with
// drop_privileges, and apptainer --fusemount, hand it to a FUSE program.
const fdPrefix = "/dev/fd/"

var fdName = regexp.MustCompile(`/(?:dev|proc/self)/fd/([0-9]+)\b`)

// fdMount returns the number in a mount point of that form.
func fdMount(mountpoint string) (fd int, ok bool) {
	m := fdName.FindStringSubmatch(mountpoint)
	if m == nil || m[0] != mountpoint {
		return 0, false
	}
	fd, err := strconv.Atoi(m[1])
	return fd, err == nil
}

// closeInherited closes what whoever started us had open: a daemon would keep their
// locks, their pipes and their disks for as long as it runs. What this process has
// opened itself (the runtime does) is told apart by close-on-exec, without which nothing
// is inherited. The standard files stay, those of our own variables, and those that an
// argument names by number.
func closeInherited(args []string, getenv func(string) string) {
	keep := map[int]bool{}
	for _, v := range []string{readyVariable, stopVariable, mountVariable} {
		if fd, err := strconv.Atoi(getenv(v)); err == nil {
			keep[fd] = true
		}
	}
	for _, arg := range args {
		for _, m := range fdName.FindAllStringSubmatch(arg, -1) {
			if fd, err := strconv.Atoi(m[1]); err == nil {
				keep[fd] = true
			}
		}
	}
	for _, fd := range openFiles() {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && flags&unix.FD_CLOEXEC == 0 && fd > 2 && !keep[fd] {
			_ = unix.Close(fd)
		}
	}
}

// openFiles returns the numbers of the files that this process has open, of which some
// may be closed by now.
func openFiles() []int {
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		var all []int
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				all = append(all, fd)
			}
		}
		return all
	}
	all := make([]int, fewFiles) // a container without /proc
	for i := range all {
		all[i] = i
	}
	return all
}
