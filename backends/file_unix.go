// SPDX-License-Identifier: Apache-2.0

//go:build unix

package backends

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// Flags for os.OpenFile.
const (
	NoFollow = syscall.O_NOFOLLOW
	NoWait   = syscall.O_NONBLOCK
)

// OnlyOurs reports whether nobody but us and root can have written to a file: it
// says nothing of the directories above it.
func OnlyOurs(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(st.Uid) == os.Geteuid() || st.Uid == 0) && info.Mode().Perm()&0o022 == 0
}

// waitAgain takes NoWait from an open file: storage that moves files to tape
// would answer EAGAIN instead of bringing one back.
func waitAgain(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = conn.Control(func(fd uintptr) { inner = syscall.SetNonblock(int(fd), false) })
	return errors.Join(err, inner)
}
