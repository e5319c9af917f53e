// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenModes(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "a", "b", "control.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for path, want := range map[string]fs.FileMode{socket: 0o600 | fs.ModeSocket, filepath.Dir(socket): 0o700 | fs.ModeDir} {
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "dir", "control.sock")
	old, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	old.(peerListener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	old.Close()
	if _, err := Dial(t.Context(), socket); !errors.Is(err, ErrNobody) {
		t.Errorf("Dial of a stale socket gives %v", err)
	}
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := Dial(t.Context(), socket); !errors.Is(err, ErrNobody) {
		t.Errorf("Dial of no socket gives %v", err)
	}
}

func TestSocketPath(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("x", 120)
	for _, c := range []struct{ state, runtime, want string }{
		{"/home/me/.local/state/sregfs/host", "/run/user/1000", "/home/me/.local/state/sregfs/host/control.sock"},
		{long, "/run/user/1000", "/run/user/1000/sregfs/"},
		{long, "", "/tmp/sregfs-1000/"},
		{long, long, "/tmp/sregfs-1000/"},
	} {
		got := SocketPath(c.state, c.runtime, 1000)
		if !strings.HasPrefix(got, c.want) || len(got) > maxSocketPath {
			t.Errorf("SocketPath(%q, %q) = %q, want %q…", c.state, c.runtime, got, c.want)
		}
	}
	if SocketPath(long, "", 1) == SocketPath(long+"y", "", 1) {
		t.Error("two state directories have one socket")
	}
}
