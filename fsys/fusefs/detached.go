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
	// detachedLook is after how many polls the table is read although it tells of no
	// change: Linux 6.18 tells of a lazy unmount only half the time.
	detachedLook = 4
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
		// The first time too: it may be gone since before the file was opened.
		if table, err := os.ReadFile("/proc/self/mountinfo"); err == nil && !hasDevice(string(table), m.device) {
			close(gone)
			return
		}
		if !m.awaitChange(int32(f.Fd())) { //nolint:gosec // a descriptor
			return
		}
		select {
		case <-m.done:
			return
		case <-time.After(detachedPause):
		}
	}
}

// awaitChange returns when the mount table changes, or may have changed; false when the
// mount ends or the table cannot be watched. proc_pid_mounts(5): it tells a change by
// POLLPRI and POLLERR.
func (m *Mounted) awaitChange(table int32) bool {
	for range detachedLook {
		n, err := unix.Poll([]unix.PollFd{{Fd: table, Events: unix.POLLPRI}}, detachedPoll)
		select {
		case <-m.done:
			return false
		default:
		}
		switch {
		case n > 0:
			return true
		case err != nil && err != unix.EINTR:
			return false
		}
	}
	return true
}

// hasDevice reports whether a file system is mounted anywhere.
func hasDevice(table, device string) bool {
	return slices.ContainsFunc(strings.Split(table, "\n"), func(line string) bool {
		e, ok := parseMount(line)
		return ok && e.device == device
	})
}
