// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A result is what an operation came to.
type result struct {
	Err      string // "", the name of an errno, or "exit N" of a program
	Data     []byte
	Names    []string
	Size     int64
	Mode     uint32
	MTime    time.Time
	From, To time.Time // when it was carried out
	Text     string    // what a program printed: for people
}

func (r result) String() string {
	s := r.Err
	if s == "" {
		s = "ok"
	}
	if r.Data != nil {
		s += fmt.Sprintf(", %d bytes, %s", len(r.Data), kindOf(r.Data))
	}
	if r.Names != nil {
		s += fmt.Sprintf(", %q", r.Names)
	}
	if r.Mode != 0 {
		s += fmt.Sprintf(", size %d, mode %o, time %s", r.Size, r.Mode, r.MTime.UTC().Format(time.RFC3339Nano))
	}
	return s + " " + strings.TrimSpace(r.Text)
}

// A request is an op for a client, and where the mount is.
type request struct {
	Mount, Verb string
	Args        []string
}

// A client is a process that has files open: what a name means to whom writes it goes by
// the process.
type client struct {
	cmd *exec.Cmd
	in  io.Closer
	enc *gob.Encoder
	dec *gob.Decoder
}

const clientVariable = "SREGFS_MODEL_CLIENT"

func startClient() (*client, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &client{cmd: exec.Command(self)}
	c.cmd.Env = append(os.Environ(), clientVariable+"=1")
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.in, c.enc, c.dec = in, gob.NewEncoder(in), gob.NewDecoder(out)
	return c, c.cmd.Start()
}

// do lets the client carry out an operation. One that hangs is killed after a minute.
func (c *client) do(mount string, verb string, args ...string) (r result) {
	timer := time.AfterFunc(time.Minute, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	if err := c.enc.Encode(request{mount, verb, args}); err != nil {
		return result{Err: "HANGS", Text: err.Error()}
	}
	if err := c.dec.Decode(&r); err != nil {
		return result{Err: "HANGS", Text: err.Error()}
	}
	return r
}

func (c *client) stop() {
	c.in.Close()
	_ = c.cmd.Wait()
}

// serveClient is the whole life of a client.
func serveClient() {
	unix.Umask(0o022)
	dec, enc := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	c := served{fds: map[string]int{}}
	for {
		var req request
		if err := dec.Decode(&req); err != nil {
			return
		}
		from := time.Now()
		r := c.serve(req)
		r.From, r.To = from, time.Now()
		if err := enc.Encode(r); err != nil {
			return
		}
	}
}

type served struct {
	fds   map[string]int // by handle
	mount string
}

func (c *served) serve(req request) (r result) {
	c.mount = req.Mount
	o := op{verb: req.Verb, args: req.Args}
	err := c.call(o, &r)
	if err != nil {
		var errno unix.Errno
		if !errors.As(err, &errno) {
			r.Text = err.Error()
			r.Err = "?"
			return r
		}
		r.Err = unix.ErrnoName(errno)
	}
	return r
}

func (c *served) path(p string) string { return c.mount + "/" + p }

var openFlags = map[string]int{
	"r": unix.O_RDONLY, "w": unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, "W": unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC,
	"x": unix.O_RDWR | unix.O_CREAT | unix.O_EXCL, "u": unix.O_RDWR,
}

func (c *served) open(p, flag string) (int, error) {
	mode := uint32(0o644)
	if flag == "W" {
		mode = 0o600
	}
	return unix.Open(c.path(p), openFlags[flag]|unix.O_CLOEXEC, mode)
}

func (c *served) call(o op, r *result) (err error) {
	switch o.verb {
	case "open":
		fd, err := c.open(o.arg(1), o.arg(2))
		if err == nil {
			c.fds[o.arg(0)] = fd
		}
		return err
	case "dup":
		c.fds[o.arg(1)], err = unix.Dup(c.fds[o.arg(0)])
		return err
	case "close":
		fd := c.fds[o.arg(0)]
		delete(c.fds, o.arg(0))
		return unix.Close(fd)
	case "reset":
		for _, fd := range c.fds {
			_ = unix.Close(fd)
		}
		clear(c.fds)
		return nil
	case "read":
		r.Data, err = readAll(c.fds[o.arg(0)], o.num(1), o.num(2))
		return err
	case "write":
		return writeAll(c.fds[o.arg(0)], content(o.arg(1), o.num(2), o.num(3)), o.num(2))
	case "truncate":
		return unix.Ftruncate(c.fds[o.arg(0)], o.num(1))
	case "fsync":
		return unix.Fsync(c.fds[o.arg(0)])
	case "utime":
		t := unix.NsecToTimeval(o.num(1) * 1e9)
		return unix.Futimes(c.fds[o.arg(0)], []unix.Timeval{t, t})
	}
	return c.callPath(o, r)
}

func (c *served) callPath(o op, r *result) error {
	switch o.verb {
	case "cp":
		fd, err := c.open(o.arg(1), "w")
		if err != nil {
			return err
		}
		err = writeAll(fd, whole(o.arg(0)), 0)
		if e := unix.Close(fd); err == nil {
			err = e
		}
		return err
	case "cat":
		fd, err := c.open(o.arg(0), "r")
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		r.Data, err = readAll(fd, 0, 1<<30)
		return err
	case "stat":
		var st unix.Stat_t
		err := unix.Stat(c.path(o.arg(0)), &st)
		r.Size, r.Mode, r.MTime = st.Size, uint32(st.Mode)&0o777, time.Unix(st.Mtim.Unix()) //nolint:unconvert // of 16 bits on Darwin
		return err
	case "ls":
		entries, err := os.ReadDir(c.path(o.arg(0)))
		r.Names = []string{}
		for _, e := range entries {
			r.Names = append(r.Names, e.Name())
		}
		slices.Sort(r.Names)
		return err
	case "mv":
		return unix.Rename(c.path(o.arg(0)), c.path(o.arg(1)))
	case "rm":
		return unix.Unlink(c.path(o.arg(0)))
	case "rmdir":
		return unix.Rmdir(c.path(o.arg(0)))
	case "mkdir":
		return c.mkdir(c.path(o.arg(0)))
	}
	return fmt.Errorf("a client cannot %s", o)
}

// mkdir makes a directory, of which it was just denied that it is there, and goes there:
// it must be where it is.
func (c *served) mkdir(dir string) error {
	var st unix.Stat_t
	_ = unix.Stat(dir, &st)
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	defer unix.Chdir("/") // as it began
	var buf [4096]byte
	_, err := unix.Getcwd(buf[:])
	return err
}

func readAll(fd int, off, n int64) ([]byte, error) {
	all := []byte{}
	buf := make([]byte, 128<<10)
	for n > 0 {
		k, err := unix.Pread(fd, buf[:min(n, int64(len(buf)))], off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || k == 0 {
			return all, err
		}
		all, off, n = append(all, buf[:k]...), off+int64(k), n-int64(k)
	}
	return all, nil
}

func writeAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		k, err := unix.Pwrite(fd, p[:min(len(p), 128<<10)], off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[k:], off+int64(k)
	}
	return nil
}
