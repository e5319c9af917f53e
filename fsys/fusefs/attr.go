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

// How long the kernel may cache an answer. It is notified of changes that the catalogue
// notices (notify.go); these limits are for those that the catalogue does not notice.
const (
	defaultNameTimeout = 10 * time.Second
	// Other programs add files to a directory of this machine; asking again is cheap.
	localNameTimeout = time.Second
	// The attributes of an image never change: another version is another inode.
	imageAttrTimeout = time.Hour
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

// changeOf decodes a SETATTR. It ignores owners: all files belong to the user who
// mounted, and copying tools that set an owner must not fail.
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

// caller returns the thread that makes the request, which the kernel tells, and with
// process also its process, which costs reading a file.
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

// processOf returns the process of a thread; 0 if the thread is in another pid namespace
// or has ended.
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

// allXattrs is the name of the attribute that holds all others: a line for each, with the
// name without fsys.XattrPrefix, a colon, and the value.
const allXattrs = "user.sreg"

// getxattr answers from a node's Xattrs. ls -l asks each file for security labels and
// access lists, so other names are refused before attrs is called. listxattr returns no
// names (decision 79).
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

// lines returns the value of allXattrs: whole lines, XATTR_SIZE_MAX bytes at most.
func lines(attrs map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if line := name + ": " + attrs[name] + "\n"; b.Len()+len(line) <= 64<<10 {
			b.WriteString(line)
		}
	}
	return b.String()
}

// noXattrs refuses to store attributes. go-fuse's default is "no such attribute", which
// cp -a reports as a failure. Our own are ignored: copies that older versions let tools
// make still have them.
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
