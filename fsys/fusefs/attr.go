// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/fsys"
)

// How long the kernel believes what it was told. Changes that the catalogue
// notices are told at once (notify.go); these bound what it does not notice.
const (
	defaultNameTimeout = 10 * time.Second
	// Files on this machine are added by others; asking again is cheap.
	localNameTimeout = time.Second
	// The attributes of an image never change: another version is another inode.
	imageAttrTimeout = time.Hour
	// noTimeout stands for 0 where go-fuse takes 0 for "the default".
	noTimeout = time.Nanosecond
)

// putAttr fills in what stat(2) shows.
func (m *Mounted) putAttr(a fsys.Attr, out *fuse.Attr) {
	out.Ino = a.Ino
	out.Mode = uint32(a.Mode.Perm() &^ m.opts.Umask)
	out.Nlink = 1 // of a directory: "not counted"
	out.Uid, out.Gid = m.opts.UID, m.opts.GID
	out.Size = uint64(max(a.Size, 0))
	out.SetTimes(&a.ModTime, &a.ModTime, &a.ModTime)
	if a.Mode.IsDir() {
		out.Mode |= syscall.S_IFDIR
	} else {
		out.Mode |= syscall.S_IFREG
	}
}

func (m *Mounted) putEntry(a fsys.Attr, name time.Duration, out *fuse.EntryOut) {
	m.putAttr(a, &out.Attr)
	out.SetEntryTimeout(name)
	out.SetAttrTimeout(m.attrTimeout(a))
}

func (m *Mounted) attrTimeout(a fsys.Attr) time.Duration {
	switch {
	case a.Changes:
		return 0
	case a.Mode.IsDir():
		return m.opts.NameTimeout
	}
	return imageAttrTimeout
}

// getattr answers a GETATTR, of a file that may have lost its name.
func (m *Mounted) getattr(a fsys.Attr, nameless bool, out *fuse.AttrOut) syscall.Errno {
	m.putAttr(a, &out.Attr)
	if nameless {
		out.Nlink = 0
	}
	out.SetTimeout(m.attrTimeout(a))
	return 0
}

// seekHole answers lseek(2) with SEEK_DATA or SEEK_HOLE for a file that is data
// from its beginning to its end. go-fuse by itself finds a hole at the end, where
// lseek(2) has ENXIO.
func seekHole(off, size uint64, whence uint32) (uint64, syscall.Errno) {
	switch {
	case whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE:
		return 0, syscall.EINVAL
	case off >= size:
		return 0, syscall.ENXIO
	case whence == unix.SEEK_HOLE:
		return size, 0
	}
	return off, 0
}

// changeOf reads a SETATTR. Owners are not kept: all files belong to who
// mounted, and a copying tool that sets them need not fail for that.
func changeOf(in *fuse.SetAttrIn) fsys.AttrChange {
	var c fsys.AttrChange
	if size, ok := in.GetSize(); ok {
		n := int64(size)
		c.Size = &n
	}
	if t, ok := in.GetMTime(); ok {
		c.ModTime = &t
	}
	if mode, ok := in.GetMode(); ok {
		perm := fs.FileMode(mode & 0o777)
		c.Mode = &perm
	}
	return c
}

// caller tells who makes the request. The kernel gives the thread; the process
// is asked for where it matters.
func caller(ctx context.Context, process bool) fsys.Caller {
	c, ok := fuse.FromContext(ctx)
	if !ok {
		return fsys.Caller{}
	}
	who := fsys.Caller{Thread: c.Pid}
	if process {
		who.Process = processOf(c.Pid)
	}
	return who
}

// processOf returns the process of a thread, 0 if it cannot be told: a thread of
// another pid namespace, or one that is gone.
func processOf(thread uint32) uint32 {
	if thread == 0 {
		return 0
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/status")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(status), "\nTgid:")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	pid, err := strconv.ParseUint(strings.TrimSpace(line), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(pid)
}

// allXattrs is the name of the attribute whose value is all others: a line each, with a
// name without fsys.XattrPrefix, a colon, and a value.
const allXattrs = "user.sreg"

// getxattr answers from a node's Xattrs. ls -l asks each file for security labels and
// access lists, which must cost little: there are none. Nothing is listed (decision 79).
func getxattr(attrs func() map[string]string, name string, dest []byte) (uint32, syscall.Errno) {
	key, ours := strings.CutPrefix(name, fsys.XattrPrefix)
	if !ours && name != allXattrs {
		return 0, syscall.ENODATA
	}
	all := attrs()
	value, found := all[key]
	if name == allXattrs {
		value, found = lines(all), len(all) > 0
	}
	if !found {
		return 0, syscall.ENODATA
	}
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE
	}
	return uint32(copy(dest, value)), 0
}

// lines returns the value of allXattrs, of whole lines and XATTR_SIZE_MAX at most.
func lines(attrs map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if line := name + ": " + attrs[name] + "\n"; b.Len()+len(line) <= 64<<10 {
			b.WriteString(line)
		}
	}
	return b.String()
}

// noXattrs refuses what would store attributes. go-fuse's default is "no such
// attribute", which cp -a reports as a failure. Our own are passed over: a copy that was
// made where they were listed still has them.
type noXattrs struct{}

func (noXattrs) Setxattr(_ context.Context, name string, _ []byte, _ uint32) syscall.Errno {
	return refuseXattr(name)
}

func (noXattrs) Removexattr(_ context.Context, name string) syscall.Errno { return refuseXattr(name) }

func refuseXattr(name string) syscall.Errno {
	if strings.HasPrefix(name, fsys.XattrPrefix) {
		return 0
	}
	return syscall.EOPNOTSUPP
}

var (
	_ gofs.NodeSetxattrer    = noXattrs{}
	_ gofs.NodeRemovexattrer = noXattrs{}
)
