// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"fmt"
	"log/slog"
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
// go-fuse switches passthrough off for the whole mount when the kernel refuses one file.
// So each device is tried here once, and files of a refused device are not offered. The
// cache's device is tried while mounting.
type backing struct {
	server *fuse.Server

	mu      sync.Mutex // guards the fields below
	why     string     // why it is off; "" if it is on
	devices map[uint64]bool
}

// start tries whether passthrough works at all, and for files of the cache's directory. If
// it does not, start logs why, unless it is switched off.
func (b *backing) start(server *fuse.Server, wanted bool, disk string, log *slog.Logger) {
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
	b.server, b.why, b.devices = server, why, make(map[uint64]bool)
	b.mu.Unlock()
	if wanted && why == "" {
		why = b.tryDisk(disk)
	}
	if wanted && why != "" {
		log.Info("the kernel reads images through this process", "passthrough", "off: "+why)
	}
}

// tryAnonymous registers a file in memory, which the kernel accepts from every process
// that has the privilege.
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

// tryDisk tries a file on the disk of a directory. If it cannot make one, the first image
// is tried instead.
func (b *backing) tryDisk(dir string) (why string) {
	f, err := anonymousFile(dir)
	if err != nil {
		return ""
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || b.device(st.Dev, f) {
		return ""
	}
	return fmt.Sprintf("the kernel refuses files on the disk of %s", dir)
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

// anonymousFile makes a file in a directory that is gone once its descriptor is closed.
func anonymousFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir), nil
	}
	f, err := os.CreateTemp(dir, ".passthrough-*") // NFS
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// String describes the state, for people.
func (b *backing) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.why != "" {
		return "off: " + b.why
	}
	refused := 0
	for _, good := range b.devices {
		if !good {
			refused++
		}
	}
	switch {
	case refused == 0:
		return "on"
	case refused == len(b.devices):
		return "off: the kernel refuses files on these disks"
	}
	return "on, but not for files on all disks"
}
