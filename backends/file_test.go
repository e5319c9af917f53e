// SPDX-License-Identifier: Apache-2.0

//go:build unix

package backends

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOpenRegular(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(at("file"), []byte("text"), 0o600), syscall.Mkfifo(at("pipe"), 0o600), os.Mkdir(at("dir"), 0o700),
		os.Symlink("file", at("link")), os.Symlink("pipe", at("link to a pipe")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		path  string
		flag  int
		wrong string
	}{
		{at("file"), os.O_RDONLY, ""}, {at("file"), os.O_WRONLY | os.O_APPEND, ""}, {at("link"), os.O_RDONLY, ""}, {at("new"), os.O_RDWR | os.O_CREATE, ""},
		{at("link"), os.O_RDONLY | NoFollow, "too many levels"},
		{at("pipe"), os.O_RDONLY, "is a pipe, not a regular file"}, {at("pipe"), os.O_RDWR, "is a pipe"}, {at("pipe"), os.O_WRONLY, "a socket or a pipe"},
		{at("link to a pipe"), os.O_RDONLY, "is a pipe"}, {at("socket"), os.O_RDONLY, "a socket or a pipe"},
		{at("dir"), os.O_RDONLY, "is a directory"}, {"/dev/null", os.O_RDONLY, "is a device"},
	} {
		opened := make(chan error, 1)
		go func() {
			f, err := OpenRegular(c.path, c.flag, 0o600)
			if err == nil {
				flags, _, _ := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFL, 0)
				if flags&syscall.O_NONBLOCK != 0 {
					err = errors.New("the file does not wait for its disk")
				}
				f.Close()
			}
			opened <- err
		}()
		select {
		case err := <-opened:
			if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("OpenRegular(%s, %#x) = %v, want %q", c.path, c.flag, err, c.wrong)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("OpenRegular(%s, %#x) waits", c.path, c.flag)
		}
	}
	if text, err := ReadRegular(at("file"), 0, 4); err != nil || string(text) != "text" {
		t.Errorf("ReadRegular: %q, %v", text, err)
	}
	if _, err := ReadRegular(at("file"), 0, 3); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("ReadRegular of too much: %v", err)
	}
}
