// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// failingDisk mounts an ext4 at dir, and returns what makes the kernel find an
// error of it.
func failingDisk(t *testing.T, dir string) (fail func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	must(t, os.Mkdir(dir, 0o700))
	run("truncate", "-s", "256M", disk)
	run("mkfs.ext4", "-q", disk)
	run("mount", "-o", "loop", disk, dir)
	must(t, os.Chmod(dir, 0o700))
	t.Cleanup(func() { run("umount", "-l", dir) })
	return func() { run("mount", "-o", "remount,abort", dir) }
}

// within waits for a process that must end by itself.
func within(t *testing.T, what string, limit time.Duration, cmd *exec.Cmd) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		t.Errorf("%s: not ended after %v", what, limit)
		_ = cmd.Process.Kill()
		return <-ended
	}
}

// The disk with the state fails: images are read all the same, and SIGTERM, or an
// unmount, ends the process.
func TestStateDiskFails(t *testing.T) {
	t.Parallel()
	reg := ocitest.Start(t, ocitest.Options{})
	reg.PushSIF("demo/a", "1", randomBytes(3<<20), nil)
	reg.PushSIF("demo/b", "1", randomBytes(3<<20), nil)
	for name, end := range map[string]func(*mounted) error{
		"SIGTERM": func(m *mounted) error { return m.cmd.Process.Signal(syscall.SIGTERM) },
		"unmount": func(m *mounted) error { return exec.Command("fusermount3", "-u", m.dir).Run() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "lab=oci,url="+reg.URL)
			fail := failingDisk(t, w.path("state"))
			m := w.mount()
			w.ok("cat", m.path("lab/demo/a:1.sif"))
			fail()
			w.ok("cat", m.path("lab/demo/a:1.sif"))
			_ = w.run("cat", m.path("lab/demo/b:1.sif")) // what is new may fail, but ends
			must(t, end(m))
			var failed *exec.ExitError
			if err := within(t, "sregfs", time.Minute, m.cmd); err != nil && !errors.As(err, &failed) {
				t.Errorf("sregfs: %v\n%s", err, &m.log)
			} else if failed != nil && failed.ExitCode() != 1 {
				t.Errorf("sregfs: exit %d\n%s", failed.ExitCode(), &m.log)
			}
			m.detach()
		})
	}
}

// One signal ends sreg while it waits for somebody to write into a pipe, opened or not.
func TestSignalWhileReading(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "lab=oci,url=http://127.0.0.1:1")
	pipe := w.path("pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))
	// The test has it open for both, so that opening it does not wait.
	open, err := os.OpenFile(pipe, os.O_RDWR, 0)
	must(t, err)
	defer open.Close()
	silent := w.path("silent")
	must(t, syscall.Mkfifo(silent, 0o600))
	for name, args := range map[string][]string{
		"open":  {"warm", "--from", silent},
		"read":  {"warm", "--from", pipe},
		"stdin": {"warm", "--from", "-"},
		"token": {"login", "lab", "--user", "me", "--token-stdin"},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(binaries+"/sreg", append(w.args, args...)...)
			cmd.Env, cmd.Stdin = w.env, open
			must(t, cmd.Start())
			// It has its handlers, and reads, once it sleeps for good: before that the signal
			// ends it in another way, which is no less right.
			w.eventually("sreg waits", func() bool {
				stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "syscall"))
				return err == nil && !strings.HasPrefix(string(stat), "running")
			})
			must(t, cmd.Process.Signal(syscall.SIGTERM))
			_ = within(t, "sreg", time.Minute, cmd)
		})
	}
}

// A second signal ends sreg at once, whatever it waits for.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "lab=oci,url=http://127.0.0.1:1")
	list := w.path("list")
	must(t, syscall.Mkfifo(list, 0o600))
	cmd := w.background(binaries+"/sreg", append(w.args, "warm", "--from", list)...)
	f, err := os.OpenFile(list, os.O_WRONLY, 0) // once sreg reads it
	must(t, err)
	defer f.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.Now().Add(20 * time.Second); ; pause() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
			return
		default:
		}
		if time.Now().After(deadline) {
			t.Error("signals are ignored")
			_ = cmd.Process.Kill()
			<-ended
			return
		}
	}
}
