// SPDX-License-Identifier: Apache-2.0

//go:build unix

package backends

import (
	"errors"
	"os"
	"syscall"
)

// Flags for os.OpenFile.
const (
	NoFollow = syscall.O_NOFOLLOW
	NoWait   = syscall.O_NONBLOCK
)

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
