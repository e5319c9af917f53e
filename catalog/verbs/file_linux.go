// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// unnamedFile makes a file without a name (O_TMPFILE), where the file system can.
func unnamedFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "/proc/self/fd/"+strconv.Itoa(fd))
	if _, err := os.Stat(f.Name()); err != nil { // no /proc: it could never get a name
		f.Close()
		return nil, err
	}
	return f, nil
}

// nameFile gives a file of unnamedFile a name, see open(2).
func nameFile(f *os.File, to string) error {
	return unix.Linkat(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

// attr returns an extended attribute, "" if there is none.
func attr(f *os.File, name string) string {
	buf := make([]byte, 256)
	n, err := unix.Fgetxattr(int(f.Fd()), name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func setAttr(f *os.File, name, value string) error {
	return unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
}
