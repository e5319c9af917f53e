// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkPeer returns fs.ErrPermission unless the process at the other end of conn
// ran as our own uid, or root, when it connected or listened.
func checkPeer(conn net.Conn) error {
	cred, err := peerOf(conn)
	if err != nil {
		return err
	}
	if uid := cred.Uid; uid != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("%w: the other side is uid %d", fs.ErrPermission, uid)
	}
	return nil
}

func peerOf(conn net.Conn) (*unix.Ucred, error) {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%w: not a Unix socket", fs.ErrPermission)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return cred, errors.Join(err, credErr)
}

// peerPID returns the process at the other end, 0 if it is not known.
func peerPID(conn net.Conn) int {
	cred, err := peerOf(conn)
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}

// peerUID returns the user at the other end, -1 if it is not known.
func peerUID(conn net.Conn) int {
	cred, err := peerOf(conn)
	if err != nil {
		return -1
	}
	return int(cred.Uid)
}

// publicOwner returns who owns a directory, and no symbolic link, in which nobody but the
// owner can put a socket. Errors: fs.ErrPermission.
func publicOwner(dir string) (int, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return -1, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || info.Mode().Perm()&0o022 != 0 {
		return -1, fmt.Errorf("%w: %s can be written by others, or is no directory", fs.ErrPermission, dir)
	}
	return int(st.Uid), nil
}

// checkDir returns fs.ErrPermission unless dir is a directory of ours, and no
// symbolic link, in which nobody else can put a socket.
func checkDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.IsDir():
		return fmt.Errorf("%w: %s is not a directory", fs.ErrPermission, dir)
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to uid %d", fs.ErrPermission, dir, st.Uid)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%w: %s is open to others (mode %#o): chmod 700 it", fs.ErrPermission, dir, info.Mode().Perm())
	}
	return nil
}
