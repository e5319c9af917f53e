// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const otherUser = 65534 // nobody

// needRoot skips a test that must become somebody else.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("SREGFS_NOSKIP") == "1" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}

func TestListenRefusesOthersDirectories(t *testing.T) {
	t.Parallel()
	refused := func(what, dir string) {
		t.Helper()
		if l, err := Listen(filepath.Join(dir, "control.sock")); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: Listen gives %v", what, err)
			if err == nil {
				l.Close()
			}
		}
	}
	base := t.TempDir()
	open := filepath.Join(base, "open")
	link := filepath.Join(base, "link")
	mine := filepath.Join(base, "mine")
	for dir, mode := range map[string]fs.FileMode{open: 0o755, mine: 0o700} {
		if err := os.Mkdir(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(mine, link); err != nil {
		t.Fatal(err)
	}
	refused("open to others", open)
	refused("a symbolic link", link)
	if os.Getuid() != 0 {
		return
	}
	theirs := filepath.Join(base, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(theirs, otherUser, otherUser); err != nil {
		t.Fatal(err)
	}
	refused("of another user", theirs)
}

const otherUserVariable = "CONTROL_TEST_SOCKET"

// asOtherUser is what the test binary does when it was started as another user.
func asOtherUser() bool {
	socket := os.Getenv(otherUserVariable)
	if socket == "" {
		return false
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println("dial:", err)
		return true
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = conn.Read(make([]byte, 1))
	fmt.Println("read:", errors.Is(err, io.EOF))
	return true
}

// Even where the modes would let them, other users are hung up on.
func TestOtherUsersAreHungUpOn(t *testing.T) {
	t.Parallel()
	needRoot(t)
	base, err := os.MkdirTemp("", "control-") //nolint:usetesting // t.TempDir is below a directory that others may not enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	socket, program := filepath.Join(base, "s"), filepath.Join(base, "program")
	inner, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l := peerListener{inner}
	accepted := make(chan net.Conn, 1)
	go func() {
		defer close(accepted)
		if conn, err := l.Accept(); err == nil {
			accepted <- conn
		}
	}()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{base, socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Env = []string{otherUserVariable + "=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUser, Gid: otherUser}}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "read: true\n" {
		t.Errorf("as another user: %q, %v", out, err)
	}
	// The own user still gets in.
	conn, err := dial(t.Context(), socket, checkPeer)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if c := <-accepted; c == nil {
		t.Error("not accepted")
	} else {
		c.Close()
	}
	l.Close()
}
