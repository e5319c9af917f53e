// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

// asUser makes a command one of an ordinary user: root reads everything.
func asUser(name string, args ...string) *exec.Cmd {
	if os.Getuid() != 0 {
		return exec.Command(name, args...)
	}
	return exec.Command("setpriv", append([]string{"--reuid=1000", "--regid=1000", "--clear-groups", "--", name}, args...)...)
}

// Another process of the same user reads the secrets of other programs in their
// environment, but not of ours.
func TestEnvironmentIsHidden(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "setpriv")
	w := newWorld(t)
	w.env = append(w.env, "LAB_TOKEN=canary-4711")
	if os.Getuid() == 0 {
		for _, path := range []string{w.dir, w.path("config.toml")} {
			must(t, os.Chown(path, 1000, 1000))
		}
		// What cannot be read as a program is hidden without our doing.
		for _, path := range []string{filepath.Dir(w.dir), binaries} {
			must(t, os.Chmod(path, 0o755))
		}
	}
	environ := func(pid int) string {
		out, err := asUser("cat", fmt.Sprintf("/proc/%d/environ", pid)).CombinedOutput()
		if err == nil && !strings.Contains(string(out), "canary-4711") {
			t.Errorf("the environment of %d can be read, and is %q", pid, out)
		}
		return string(out)
	}
	start := func(name string, args ...string) *exec.Cmd {
		cmd := asUser(name, args...)
		cmd.Env, cmd.Stdin = w.env, strings.NewReader("hunter2\n")
		must(t, cmd.Start())
		return cmd
	}

	out, in, err := os.Pipe()
	must(t, err)
	defer out.Close()
	other := asUser("sh", "-c", "echo running; exec sleep 60")
	other.Env, other.Stdout = w.env, in
	must(t, other.Start())
	in.Close()
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := environ(other.Process.Pid); !strings.Contains(got, "canary-4711") {
		t.Fatalf("the environment of any other program: %q", got)
	}

	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		once.Do(func() { close(asked) })
		<-answer
	}))
	defer srv.Close()
	login := start(binaries+"/sreg", "--remote", "lab=oci,url="+srv.URL, "login", "lab", "--user", "me", "--token-stdin")
	select {
	case <-asked: // it has begun, and waits for the registry
	case <-time.After(time.Minute):
		t.Error("sreg login asks nothing")
	}
	got := environ(login.Process.Pid)
	close(answer)
	must(t, login.Wait())
	if !strings.Contains(got, "Permission denied") {
		t.Errorf("the environment of sreg login: %q", got)
	}

	must(t, os.Mkdir(w.path("mnt"), 0o755))
	if os.Getuid() == 0 {
		must(t, os.Chown(w.path("mnt"), 1000, 1000))
	}
	must(t, start(binaries+"/sregfs", "--remote", "lab=oci,url="+srv.URL+",token_env=LAB_TOKEN", w.path("mnt")).Wait())
	defer func() { _ = exec.Command("fusermount3", "-uzq", w.path("mnt")).Run() }()
	daemon, err := statedir.Holder(w.path("state"))
	must(t, err)
	if got := environ(daemon.PID); !strings.Contains(got, "Permission denied") {
		t.Errorf("the environment of sregfs: %q", got)
	}
	must(t, syscall.Kill(daemon.PID, syscall.SIGTERM))
	w.eventually("sregfs ends", func() bool {
		_, err := statedir.Holder(w.path("state"))
		return err != nil
	})
}
