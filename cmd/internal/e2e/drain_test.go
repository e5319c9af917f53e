// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// tail keeps what lies beyond a byte of all blobs back until release is called: nobody
// can have read that ahead.
func tail(from int64) (_ ocitest.Middleware, release func()) {
	open := make(chan struct{})
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			first, last, _ := strings.Cut(strings.TrimPrefix(req.Header.Get("Range"), "bytes="), "-")
			start, err := strconv.ParseInt(first, 10, 64)
			if end, _ := strconv.ParseInt(last, 10, 64); err == nil && (start >= from || end >= from) {
				select {
				case <-open:
				case <-req.Context().Done():
					return
				}
			}
			next.ServeHTTP(w, req)
		})
	}, func() { close(open) }
}

// detached waits until the mount point is free.
func (m *mounted) detached() {
	m.w.t.Helper()
	m.w.eventually("the mount point is free", func() bool {
		table, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && !strings.Contains(string(table), " "+m.dir+" ")
	})
}

// ended waits for the program to end, as it must without more being asked of it.
func (m *mounted) ended() {
	m.w.t.Helper()
	if err := within(m.w.t, "sregfs", time.Minute, m.cmd); err != nil {
		m.w.t.Errorf("sregfs: %v\n%s", err, &m.log)
	}
}

// retired returns the processes that serve only what is open.
func (w *world) retired() (pids []int, open []string) {
	w.t.Helper()
	var s struct {
		Retired []struct {
			PID  int
			Open []struct {
				Name string
				PID  int
			}
		}
	}
	must(w.t, json.Unmarshal([]byte(w.ok("sreg", "status", "-o", "json")), &s))
	for _, r := range s.Retired {
		pids = append(pids, r.PID)
		for _, f := range r.Open {
			open = append(open, fmt.Sprintf("%s %d", f.Name, f.PID))
		}
	}
	return pids, open
}

// refused checks that nothing can be opened through a directory of a mount that ended.
func refused(t *testing.T, dir *os.File, names ...string) {
	t.Helper()
	try := func(name string, flags int) {
		t.Helper()
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_CLOEXEC, 0o644)
		if !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("open %s of the former mount with flags %#x: %v, want ENOTCONN", name, flags, err)
		}
		if err == nil {
			must(t, unix.Close(fd))
		}
	}
	for _, name := range names {
		try(name, unix.O_RDONLY)
	}
	try("new:1.sif", unix.O_WRONLY|unix.O_CREAT)
	try(".", unix.O_DIRECTORY)
}

// SIGTERM leaves open files to who has them: what is not here yet is read on, also
// through memory maps, while the next sregfs has the mount point, the state and the
// cache.
func TestStopWithOpenFiles(t *testing.T) {
	t.Parallel()
	const size = 64<<20 + 4321
	reg := ocitest.Start(t, ocitest.Options{})
	content, small := randomBytes(size), randomBytes(1<<20)
	reg.PushSIF("demo/big", "1", content, nil)
	reg.PushSIF("demo/small", "1", small, nil)
	cold, release := tail(24 << 20)
	reg.Use(cold)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	w.ok("cat", m.path("lab/demo/small:1.sif"))
	dir, err := os.Open(m.path("lab/demo"))
	must(t, err)
	defer dir.Close()
	f, err := os.Open(m.path("lab/demo/big:1.sif"))
	must(t, err)
	defer f.Close()
	whole, err := os.Open(m.path("lab/demo/small:1.sif"))
	must(t, err)
	head := make([]byte, 4096)
	_, err = io.ReadFull(f, head)
	must(t, err)
	b := mapFile(t, f.Name())

	must(t, m.cmd.Process.Signal(syscall.SIGTERM))
	m.detached()
	refused(t, dir, "big:1.sif", "small:1.sif")
	next := w.mount()
	if got := w.ok("sha256sum", next.path("lab/demo/small:1.sif")); "sha256:"+strings.Fields(got)[0] != ocitest.Digest(small) {
		t.Errorf("the next mount serves %s", got)
	}
	refused(t, dir, "big:1.sif", "small:1.sif")
	pids, open := w.retired()
	if len(pids) != 1 || pids[0] != m.cmd.Process.Pid || !strings.Contains(fmt.Sprint(open), fmt.Sprintf("lab/demo/big:1.sif %d", os.Getpid())) {
		t.Errorf("sreg status: retired %v, open %q", pids, open)
	}
	if out := w.ok("sreg", "status"); !strings.Contains(out, fmt.Sprintf("pid %d (", m.cmd.Process.Pid)) || !strings.Contains(out, fmt.Sprintf("(pid %d, ", next.cmd.Process.Pid)) {
		t.Errorf("sreg status:\n%s", out)
	}

	// One reads through the next mount what the other reads through the former one.
	sum := exec.Command("sha256sum", next.path("lab/demo/big:1.sif"))
	var out bytes.Buffer
	sum.Stdout = &out
	must(t, sum.Start())
	release()
	for off := size - 100; off > 0; off -= 7<<20 + 11 {
		if got := make([]byte, 100); true {
			_, err := f.ReadAt(got, int64(off))
			if err != nil || !bytes.Equal(got, content[off:off+100]) {
				t.Fatalf("read at %d of the former mount: %v (or other bytes)", off, err)
			}
		}
	}
	if got := make([]byte, size); b.read(got, 0) != nil || !bytes.Equal(got, content) {
		t.Errorf("the memory map cannot be read, or shows other bytes\n%s", &m.log)
	}
	if got, err := io.ReadAll(whole); err != nil || !bytes.Equal(got, small) {
		t.Errorf("the whole image: %v (or other bytes)", err)
	}
	must(t, sum.Wait())
	if "sha256:"+strings.Fields(out.String())[0] != ocitest.Digest(content) {
		t.Errorf("the next mount serves %s", &out)
	}
	must(t, f.Close())
	must(t, whole.Close())
	if pids, _ := w.retired(); len(pids) != 1 {
		t.Errorf("retired %v while the file is mapped", pids)
	}
	must(t, b.close())
	m.ended() // though the directory is open
	if !strings.Contains(m.log.String(), "all files are closed") {
		t.Errorf("the log:\n%s", &m.log)
	}
	if pids, _ := w.retired(); len(pids) != 0 {
		t.Errorf("retired %v after the end", pids)
	}
	refused(t, dir, "big:1.sif")
	w.ok("cat", next.path("lab/demo/big:1.sif"))
}

// Without an open file the end comes at once, and with one after drain_timeout, which
// the log names with the file.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("demo/a", "1", randomBytes(1<<20), nil)
	for name, flag := range map[string]string{"over": "--drain-timeout=1s", "none": "--drain-timeout=0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "lab=oci,url="+reg.URL)
			m := w.mount(flag)
			f, err := os.Open(m.path("lab/demo/a:1.sif"))
			must(t, err)
			defer f.Close()
			must(t, m.cmd.Process.Signal(syscall.SIGTERM))
			m.ended()
			named := strings.Contains(m.log.String(), "drain_timeout is over") && strings.Contains(m.log.String(), fmt.Sprintf("lab/demo/a:1.sif (pid %d ", os.Getpid()))
			if named != (name == "over") {
				t.Errorf("the log:\n%s", &m.log)
			}
		})
	}
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	w.ok("cat", m.path("lab/demo/a:1.sif"))
	must(t, m.cmd.Process.Signal(syscall.SIGTERM))
	m.ended()
	if strings.Contains(m.log.String(), "files are open") {
		t.Errorf("the log:\n%s", &m.log)
	}
}

// A second signal ends it at once, and leaves nothing that would be taken for it.
func TestSecondSignalWhileDraining(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("demo/a", "1", randomBytes(1<<20), nil)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	f, err := os.Open(m.path("lab/demo/a:1.sif"))
	must(t, err)
	defer f.Close()
	must(t, m.cmd.Process.Signal(syscall.SIGTERM))
	w.eventually("it serves only what is open", func() bool { return strings.Contains(m.log.String(), "files are open") })
	must(t, m.cmd.Process.Signal(syscall.SIGTERM))
	_ = within(t, "sregfs", time.Minute, m.cmd)
	if code := m.cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d\n%s", code, &m.log)
	}
	if pids, _ := w.retired(); len(pids) != 0 {
		t.Errorf("retired %v", pids)
	}
}

// What is being copied in when the signal comes is published when it is closed, or
// renamed after that, and the next mount waits for it.
func TestStopWhileCopying(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content, err := os.ReadFile(greet)
	must(t, err)
	for name, temporary := range map[string]string{"close": "a:1.sif", "rename": ".a:1.sif.Xy12Zq"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			repo := "stop/" + name
			w := newWorld(t, "lab=oci,url="+reg.URL)
			m := w.mount()
			w.ok("mkdir", "-p", m.path("lab/stop/"+name))
			dir, err := os.Open(m.path("lab/stop/" + name))
			must(t, err)
			defer dir.Close()
			f, err := os.Create(filepath.Join(dir.Name(), temporary))
			must(t, err)
			_, err = f.Write(content[:len(content)/2])
			must(t, err)
			must(t, m.cmd.Process.Signal(syscall.SIGTERM))
			m.detached()
			refused(t, dir)
			next := make(chan *mounted, 1)
			go func() { next <- w.mount() }()
			_, err = f.Write(content[len(content)/2:])
			must(t, err)
			must(t, f.Close())
			if name == "rename" {
				must(t, unix.Renameat(int(dir.Fd()), temporary, int(dir.Fd()), "a:1.sif"))
			}
			if _, ok := reg.Manifest(repo+"/a", "1"); !ok {
				t.Error("the registry does not have it")
			}
			n := <-next
			m.ended()
			w.ok("cmp", greet, n.path("lab/stop/"+name+"/a:1.sif"))
			if s := w.status(); len(s.Uploads) > 0 {
				t.Errorf("uploads %+v", s.Uploads)
			}
		})
	}
}

// Who writes for longer than stop_timeout gets an error, and the next mount has what was
// written.
func TestStopWhileWritingForLong(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount("--stop-timeout=1s")
	w.ok("mkdir", m.path("lab/demo"))
	f, err := os.Create(m.path("lab/demo/a:1.sif"))
	must(t, err)
	defer f.Close()
	_, err = f.Write(randomBytes(1 << 20))
	must(t, err)
	must(t, m.cmd.Process.Signal(syscall.SIGTERM))
	m.detached()
	w.mount()
	s := w.status()
	if len(s.Uploads) != 1 || s.Uploads[0].Size != 1<<20 || s.Uploads[0].Target.Ref.String() != "demo/a:1" {
		t.Errorf("uploads %+v", s.Uploads)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("writing on has no error")
	}
	if err := f.Close(); err == nil {
		t.Error("closing has no error")
	}
	m.ended()
	if !strings.Contains(m.log.String(), "still being written") {
		t.Errorf("the log:\n%s", &m.log)
	}
}

// A lazy unmount by somebody else is as good as a signal: the next one can mount.
func TestLazyUnmount(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(1 << 20)
	reg.PushSIF("demo/a", "1", content, nil)
	w := newWorld(t, "lab=oci,url="+reg.URL)
	m := w.mount()
	f, err := os.Open(m.path("lab/demo/a:1.sif"))
	must(t, err)
	w.ok("fusermount3", "-u", "-z", m.dir)
	next := w.mount()
	w.ok("cat", next.path("lab/demo/a:1.sif"))
	// The signal that a service manager sends after it unmounted is the first one.
	must(t, m.cmd.Process.Signal(syscall.SIGTERM))
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the former mount: %v (or other bytes)", err)
	}
	must(t, f.Close())
	m.ended()
	w.ok("cat", next.path("lab/demo/a:1.sif"))
}

// For systemd the service has stopped when the next one can start: its main process
// ends, and another goes on for the files that are open.
func TestStopUnderSystemd(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	content := randomBytes(1 << 20)
	reg.PushSIF("demo/a", "1", content, nil)
	for name, signals := range map[string]func(t *testing.T, m *mounted, serving int){
		"process": func(t *testing.T, m *mounted, _ int) {
			must(t, m.cmd.Process.Signal(syscall.SIGTERM))
		},
		"control-group": func(t *testing.T, m *mounted, serving int) {
			must(t, m.cmd.Process.Signal(syscall.SIGTERM))
			must(t, syscall.Kill(serving, syscall.SIGTERM))
		},
		"main process killed": func(t *testing.T, m *mounted, _ int) { must(t, m.cmd.Process.Kill()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "lab=oci,url="+reg.URL)
			socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: w.path("notify"), Net: "unixgram"})
			must(t, err)
			defer socket.Close()
			w.env = append(w.env, "NOTIFY_SOCKET="+w.path("notify"))
			m := w.mount()
			message := make([]byte, 4096)
			n, err := socket.Read(message)
			must(t, err)
			if !strings.Contains(string(message[:n]), "READY=1") {
				t.Errorf("systemd is told %q", message[:n])
			}
			serving := w.status().PID
			if serving == m.cmd.Process.Pid {
				t.Fatal("the main process serves")
			}
			f, err := os.Open(m.path("lab/demo/a:1.sif"))
			must(t, err)
			signals(t, m, serving)
			if err := within(t, "the main process", time.Minute, m.cmd); err != nil && name != "main process killed" {
				t.Errorf("the main process: %v\n%s", err, &m.log)
			}
			if name == "main process killed" {
				m.detached()
			}
			next := w.mount()
			w.ok("cat", next.path("lab/demo/a:1.sif"))
			if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
				t.Errorf("the former mount: %v (or other bytes)", err)
			}
			if err := syscall.Kill(serving, 0); err != nil {
				t.Errorf("the process that serves the open file: %v", err)
			}
			must(t, f.Close())
			w.eventually("the process that served the open file ends", func() bool {
				return errors.Is(syscall.Kill(serving, 0), syscall.ESRCH)
			})
		})
	}
}
