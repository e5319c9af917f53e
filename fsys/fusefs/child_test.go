// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/fsys/fusefs"
)

// child returns a command that runs one of children in another process.
func child(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), "FUSEFS_TEST_CHILD="+name)
	return cmd
}

// childMmap compares a file of the mount, mapped, with a file outside.
func childMmap(args []string) error {
	want, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	for _, flags := range []int{unix.MAP_PRIVATE, unix.MAP_SHARED} {
		got, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ, flags)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return errors.New("the mapped bytes differ")
		}
		if err := unix.Munmap(got); err != nil {
			return err
		}
	}
	return nil
}

// childRun is a program in a container: it has an image mapped, and goes on with it
// when it is told to.
func childRun(args []string) error {
	want, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := unix.Mmap(int(f.Fd()), 0, len(want), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if got[0] != want[0] {
		return errors.New("the first byte differs")
	}
	fmt.Println("running")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	if !bytes.Equal(got, want) { // or SIGBUS
		return errors.New("the mapped bytes differ")
	}
	return nil
}

// childMount mounts an empty tree and waits to be killed.
func childMount(args []string) error {
	if _, err := fusefs.Mount(nil, args[0], emptyTree(), fusefs.Options{}); err != nil { //nolint:staticcheck // no context here
		return err
	}
	fmt.Println("mounted")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// childCopy copies the first part of its input to a file of the mount and waits
// to be killed, with the file open.
func childCopy(args []string) error {
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, os.Stdin); err != nil {
		return err
	}
	fmt.Println("copied")
	select {}
}

// childRewrite writes a file in all the ways in which one descriptor is not the
// last one, and closes it.
func childRewrite(args []string) error {
	content, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o755)
	if err != nil {
		return err
	}
	end := int64(len(content)) - 4096
	closeTwin := func() error {
		twin, err := unix.Dup(int(f.Fd()))
		if err != nil {
			return err
		}
		return unix.Close(twin)
	}
	at := func(text string, off int64) func() error {
		return func() error { _, err := f.WriteAt([]byte(text), off); return err }
	}
	mapped := func() error {
		m, err := unix.Mmap(int(f.Fd()), 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(m[end+300:], "mapped")
		return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
	}
	again := func() error {
		g, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = g.WriteAt([]byte("opened again"), end+400)
		return errors.Join(err, g.Close())
	}
	for i, step := range []func() error{
		func() error { _, err := f.WriteAt(content, 0); return err }, f.Sync, again, closeTwin, at("after a closing", end), f.Sync, again,
		func() error { return exec.Command("/bin/sh", "-c", "exec 3>&-").Run() }, at("after a fork", end+100), closeTwin,
		mapped, closeTwin, at("at last", end+200),
		func() error { return f.Truncate(int64(len(content)) + 5) }, closeTwin, func() error { return f.Truncate(int64(len(content))) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return f.Close()
}

// childCalls makes the calls that programs make, also those that cannot work,
// in a directory of the mount with an image in it. It fails on ENOSYS.
func childCalls(args []string) error {
	dir, image := args[0], filepath.Join(args[0], args[1])
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	tmp := filepath.Join(dir, ".tmp")
	w, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer w.Close()
	fd, dirFd, wfd := int(f.Fd()), int(d.Fd()), int(w.Fd())
	var st unix.Statfs_t
	var sx unix.Statx_t
	buf := make([]byte, 100)
	calls := map[string]func() error{
		"fsync":        func() error { return unix.Fsync(fd) },
		"fdatasync":    func() error { return unix.Fdatasync(fd) },
		"fsync dir":    func() error { return unix.Fsync(dirFd) },
		"fsync draft":  func() error { return unix.Fsync(wfd) },
		"fstatfs":      func() error { return unix.Fstatfs(fd, &st) },
		"statx":        func() error { return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_ALL, &sx) },
		"syncfs":       func() error { return unix.Syncfs(fd) },
		"seek data":    func() error { _, err := unix.Seek(fd, 0, unix.SEEK_DATA); return err },
		"seek hole":    func() error { _, err := unix.Seek(fd, 0, unix.SEEK_HOLE); return err },
		"flock":        func() error { return unix.Flock(fd, unix.LOCK_SH) },
		"fcntl lock":   func() error { return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK}) },
		"getlk":        func() error { return unix.FcntlFlock(uintptr(fd), unix.F_GETLK, &unix.Flock_t{Type: unix.F_RDLCK}) },
		"poll":         func() error { _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); return err },
		"fadvise":      func() error { return unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) },
		"readahead":    func() error { _, _, e := unix.Syscall(unix.SYS_READAHEAD, uintptr(fd), 0, 4096); return not0(e) },
		"ioctl":        func() error { _, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS); return err },
		"ficlone":      func() error { return unix.IoctlFileClone(wfd, fd) },
		"copy range":   func() error { _, err := unix.CopyFileRange(fd, nil, wfd, nil, 4096, 0); return err },
		"fallocate":    func() error { return unix.Fallocate(wfd, 0, 0, 8192) },
		"punch hole":   func() error { return unix.Fallocate(wfd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096) },
		"getxattr":     func() error { _, err := unix.Getxattr(image, "user.sreg.uri", buf); return err },
		"no xattr":     func() error { _, err := unix.Getxattr(image, "user.other", buf); return err },
		"acl":          func() error { _, err := unix.Getxattr(image, "system.posix_acl_access", buf); return err },
		"listxattr":    func() error { _, err := unix.Listxattr(image, nil); return err },
		"setxattr":     func() error { return unix.Setxattr(image, "user.x", buf, 0) },
		"set acl":      func() error { return unix.Setxattr(tmp, "system.posix_acl_access", buf, 0) },
		"removexattr":  func() error { return unix.Removexattr(image, "user.x") },
		"dir setxattr": func() error { return unix.Setxattr(dir, "user.x", buf, 0) },
		"link":         func() error { return unix.Link(image, filepath.Join(dir, ".l")) },
		"symlink":      func() error { return unix.Symlink("x", filepath.Join(dir, ".s")) },
		"readlink":     func() error { _, err := unix.Readlink(image, buf); return err },
		"mknod":        func() error { return unix.Mknod(filepath.Join(dir, ".n"), unix.S_IFIFO|0o600, 0) },
		"tmpfile":      func() error { _, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600); return err },
		"exchange":     func() error { return unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, image, unix.RENAME_EXCHANGE) },
		"rename image": func() error { return errors.Join(unix.Rename(image, image+"2"), unix.Rename(image+"2", image)) },
		"truncate":     func() error { return unix.Truncate(image, 1) },
		"chmod":        func() error { return unix.Chmod(image, 0o700) },
		"chown":        func() error { return unix.Chown(image, 1, 1) },
		"utimes":       func() error { return unix.Utimes(image, []unix.Timeval{{}, {}}) },
		"access":       func() error { return unix.Access(image, unix.X_OK) },
		"bmap":         func() error { _, err := unix.IoctlGetInt(fd, 1); return err },
		"write":        func() error { _, err := w.Write(buf); return err },
		"mmap write":   func() error { return mapAndWrite(wfd) },
		"close draft":  func() error { return w.Close() },
	}
	for name, call := range calls {
		if name == "close draft" {
			continue
		}
		if err := call(); errors.Is(err, syscall.ENOSYS) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := seeksAsOnDisks(fd); err != nil {
		return err
	}
	for _, name := range mustWork {
		if err := calls[name](); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return os.Remove(tmp)
}

// seeksAsOnDisks tries what lseek(2) says of holes, in a file without any.
func seeksAsOnDisks(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	for _, tc := range []struct {
		off    int64
		whence int
		want   int64
		err    error
	}{
		{0, unix.SEEK_HOLE, st.Size, nil}, {5, unix.SEEK_DATA, 5, nil}, {st.Size - 1, unix.SEEK_HOLE, st.Size, nil},
		{st.Size, unix.SEEK_HOLE, 0, unix.ENXIO}, {st.Size, unix.SEEK_DATA, 0, unix.ENXIO}, {st.Size + 1, unix.SEEK_HOLE, 0, unix.ENXIO},
	} {
		got, err := unix.Seek(fd, tc.off, tc.whence)
		if !errors.Is(err, tc.err) || err == nil && got != tc.want {
			return fmt.Errorf("lseek(%d, %d) = %d, %v, want %d, %v", tc.off, tc.whence, got, err, tc.want, tc.err)
		}
	}
	return nil
}

// mustWork are the calls whose failure would break a tool that works on disks.
var mustWork = []string{
	"fsync", "fdatasync", "fsync dir", "fsync draft", "fstatfs", "statx", "seek data", "seek hole", "flock", "fcntl lock",
	"getlk", "poll", "fadvise", "copy range", "fallocate", "getxattr", "listxattr", "chmod", "chown", "utimes", "access",
	"write", "mmap write", "close draft",
}

func not0(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func mapAndWrite(fd int) error {
	if err := unix.Ftruncate(fd, 8192); err != nil {
		return err
	}
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[10] = 'x'
	return errors.Join(unix.Msync(m, unix.MS_SYNC), unix.Munmap(m))
}

func fadviseDontNeed(f *os.File) error {
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}
