// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// What telldir told leads to the same place of a directory, also when drafts and
// directories have come and gone.
func TestSeekdir(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	for i := range 700 { // more than one piece
		w.Service.Put(fmt.Sprintf("c/i:%d", i), nil)
		w.Service.Put(fmt.Sprintf("c/sub%d/i:1", i%20), nil)
	}
	dir, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
	fusetest.MustShell(t, dir, "mkdir local/c && mkdir web/c/.tool && ls web/c >/dev/null")
	for _, in := range []string{"local/c", "web/c", "web/c/.tool"} {
		if out, err := child(t, "seekdir", filepath.Join(dir, in)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", in, err, out)
		}
	}
}

// An offset is an entry of a directory, and the place after it.
type offset struct {
	name string
	off  int64
}

// childSeekdir goes through a directory as programs do that seek in it.
func childSeekdir(args []string) error {
	dir := args[0]
	for i := range 60 {
		name := fmt.Sprintf(".draft%d", i)
		err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644)
		if i%2 == 0 && err == nil {
			err = os.Mkdir(filepath.Join(dir, fmt.Sprint("made", i)), 0o755)
		}
		if err != nil {
			return err
		}
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	before, err := readAt(fd, 0, -1)
	if err != nil {
		return err
	}
	if err := seekAll(fd, before, before); err != nil {
		return fmt.Errorf("nothing has changed: %w", err)
	}
	for i := range 20 {
		name := filepath.Join(dir, fmt.Sprintf(".draft%d", 3*i))
		if err := errors.Join(os.Remove(name), os.WriteFile(name+"-new", []byte("x"), 0o644),
			os.Mkdir(filepath.Join(dir, fmt.Sprint("between", i)), 0o755)); err != nil {
			return err
		}
	}
	after, err := readAt(fd, 0, -1)
	if err != nil {
		return err
	}
	return seekAll(fd, before, after)
}

// seekAll goes to each place of before, from the last to the first, and compares
// what comes next with what is there now.
func seekAll(fd int, before, now []offset) error {
	for _, o := range slices.Backward(before) {
		got, err := readAt(fd, o.off, 1)
		if err != nil {
			return fmt.Errorf("after %s: %w", o.name, err)
		}
		i := slices.IndexFunc(now, func(n offset) bool { return n.name == o.name })
		if i < 0 {
			continue // it is gone: anything may follow, but no error
		}
		var want []offset
		if i+1 < len(now) {
			want = now[i+1 : i+2]
		}
		if len(got) != len(want) || len(got) > 0 && got[0].name != want[0].name {
			return fmt.Errorf("after %s: %v, want %v", o.name, got, want)
		}
	}
	return nil
}

// readAt reads at most so many entries from a place; all if most is negative.
func readAt(fd int, off int64, most int) (list []offset, err error) {
	if _, err := unix.Seek(fd, off, unix.SEEK_SET); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if n <= 0 || err != nil {
			return list, err
		}
		for rest := buf[:n]; len(rest) > 0; { // struct linux_dirent64
			size := binary.NativeEndian.Uint16(rest[16:])
			name, _, _ := bytes.Cut(rest[19:size], []byte{0})
			list = append(list, offset{string(name), int64(binary.NativeEndian.Uint64(rest[8:]))})
			if rest = rest[size:]; len(list) == most {
				return list, nil
			}
		}
	}
}
