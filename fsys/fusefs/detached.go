// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// detachedPause is the time between two reads of the mount table, which changes all
	// the time on a machine that runs containers.
	detachedPause = time.Second
	detachedPoll  = 500 // milliseconds, after which an end of the mount is noticed
)

// Detached returns a channel that is closed when the mount is not in this mount namespace
// any more though files of it are open: after umount -l or fusermount3 -uz. The kernel
// tells a FUSE server of an unmount only when the last file is closed.
func (m *Mounted) Detached() <-chan struct{} {
	gone := make(chan struct{})
	if m.device != "" {
		go m.watchTable(gone) // ends with the mount
	}
	return gone
}

func (m *Mounted) watchTable(gone chan<- struct{}) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer f.Close()
	for {
		// proc_pid_mounts(5): the table tells a change by POLLPRI and POLLERR.
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		n, err := unix.Poll(fds, detachedPoll)
		select {
		case <-m.done:
			return
		default:
		}
		if n <= 0 {
			if err != nil && err != unix.EINTR {
				return
			}
			continue
		}
		if table, err := os.ReadFile("/proc/self/mountinfo"); err == nil && !hasDevice(string(table), m.device) {
			close(gone)
			return
		}
		select {
		case <-m.done:
			return
		case <-time.After(detachedPause):
		}
	}
}

// hasDevice reports whether a file system is mounted anywhere.
func hasDevice(table, device string) bool {
	return slices.ContainsFunc(strings.Split(table, "\n"), func(line string) bool {
		e, ok := parseMount(line)
		return ok && e.device == device
	})
}
