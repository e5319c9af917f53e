// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/cache"
)

// backing knows which files the kernel can read without us (Linux 6.9, with
// CAP_SYS_ADMIN, on most local file systems).
//
// go-fuse gives passthrough up for the whole mount when the kernel refuses one
// file. So each device is tried here first, once, and refused files never get
// that far.
type backing struct {
	server *fuse.Server

	mu      sync.Mutex // guards the fields below
	why     string     // why it is off; "" if it is on
	devices map[uint64]bool
}

// start tries whether passthrough works at all.
func (b *backing) start(server *fuse.Server, wanted bool) {
	why := ""
	switch {
	case !wanted:
		why = "switched off"
	case server.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0:
		why = "not known to this kernel (Linux 6.9 is)"
	default:
		why = tryAnonymous(server)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server, b.why, b.devices = server, why, make(map[uint64]bool)
}

// tryAnonymous registers a file in memory, which the kernel takes from whoever
// has the privilege.
func tryAnonymous(server *fuse.Server) (why string) {
	fd, err := unix.MemfdCreate("sregfs-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Sprintf("memfd_create: %v", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	switch e := register(server, fd); e {
	case 0:
		return ""
	case syscall.EPERM:
		return "needs the capability CAP_SYS_ADMIN"
	default:
		return e.Error()
	}
}

func register(server *fuse.Server, fd int) syscall.Errno {
	id, errno := server.RegisterBackingFd(&fuse.BackingMap{Fd: int32(fd)})
	if errno == 0 {
		errno = server.UnregisterBackingFd(id)
	}
	return errno
}

// on reports whether passthrough works for some files.
func (b *backing) on() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why == ""
}

// usable reports whether the kernel can read the blob without us: it is whole,
// and on a device whose files the kernel takes.
func (b *backing) usable(blob *cache.Blob) bool {
	if !b.on() {
		return false
	}
	file, ok := blob.File()
	if !ok {
		return false
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(file.Fd()), &st); err != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return false
	}
	return b.device(st.Dev, file)
}

func (b *backing) device(dev uint64, file *os.File) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	good, known := b.devices[dev]
	if !known {
		good = register(b.server, int(file.Fd())) == 0
		b.devices[dev] = good
	}
	return good
}

// String tells how it stands, for people.
func (b *backing) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.why != "" {
		return "off: " + b.why
	}
	for _, good := range b.devices {
		if !good {
			return "on, but not for files on all disks"
		}
	}
	return "on"
}
