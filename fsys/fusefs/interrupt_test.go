// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// hold keeps the requests of that method waiting until release. Each is told on
// asked when it has come.
func hold(t *testing.T, s *fsystest.Service, method string) (asked <-chan struct{}, release func()) {
	t.Helper()
	came, released := make(chan struct{}, 100), make(chan struct{})
	fault := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == method {
			came <- struct{}{}
			<-released
		}
		return false
	}
	s.Fault.Store(&fault)
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	return came, release
}

// A signal that a program handles ends neither its stat nor its read.
func TestInterrupt_handled(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, method string
		call         func(path string) error
	}{
		{"stat", http.MethodHead, func(path string) error {
			var st unix.Stat_t
			return unix.Lstat(path, &st)
		}},
		{"read", http.MethodGet, func(path string) error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			_, err = unix.Pread(fd, make([]byte, 4096), 0)
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := fsystest.New(t, fsystest.Options{})
			w.Service.Put("c/a:1", fsystest.Image(1<<20, 1))
			mnt, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
			asked, release := hold(t, w.Service, test.method)
			thread, result := make(chan int), make(chan error)
			go func() {
				runtime.LockOSThread()
				thread <- unix.Gettid()
				result <- test.call(filepath.Join(mnt, "web/c/a:1.sif"))
			}()
			tid := <-thread
			<-asked
			// Go's runtime handles SIGURG and sends it itself. Each waits until the one
			// before it has been handled or lies with the kernel.
			for range 20 {
				if err := unix.Tgkill(os.Getpid(), tid, syscall.SIGURG); err != nil {
					t.Fatal(err)
				}
				runtime.Gosched()
			}
			select {
			case err := <-result:
				t.Fatalf("ended while the service holds its answer: %v", err)
			default:
			}
			release()
			if err := <-result; err != nil {
				t.Errorf("got %v after signals that are handled", err)
			}
		})
	}
}

// Ctrl-C ends a read that waits for a service, also after a signal that means
// nothing.
func TestInterrupt_stop(t *testing.T) {
	t.Parallel()
	for _, first := range []syscall.Signal{0, syscall.SIGWINCH} {
		w := fsystest.New(t, fsystest.Options{})
		w.Service.Put("c/a:1", fsystest.Image(1<<20, 1))
		mnt, _ := fusetest.Mount(t, w.FS, fusefs.Options{})
		asked, _ := hold(t, w.Service, http.MethodGet)
		cmd := exec.Command("sh", "-c", `trap : WINCH; exec 3<"$0"; read -r x <&3; echo "came through"`, filepath.Join(mnt, "web/c/a:1.sif"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-asked
		for _, sig := range []syscall.Signal{first, syscall.SIGINT} {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		err := cmd.Wait() // without the answer of the service
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGINT {
			t.Errorf("ended with %v, want by SIGINT", err)
		}
	}
}

// A mount whose process is killed is dead, whatever programs that started: they
// must not hold the kernel's device.
func TestMount_deviceNotInherited(t *testing.T) {
	t.Parallel()
	w := fsystest.New(t, fsystest.Options{})
	fusetest.Mount(t, w.FS, fusefs.Options{})
	out, err := exec.Command("sh", "-c", "ls -l /proc/$$/fd").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "/dev/fuse") {
		t.Errorf("a program that was started has the device open:\n%s", out)
	}
}
