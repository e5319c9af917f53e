// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/buildtest"
)

const greet = "../../../catalog/inspect/testdata/greet-signed.sif"

var binaries string

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == mapArgument {
		if err := serveMap(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(buildtest.Run(m, &binaries))
}

// A world is one user's machine: a home, a state directory, a store. Two worlds
// share nothing but the registry.
type world struct {
	t    *testing.T
	dir  string
	env  []string
	args []string // remotes, for both programs

	umask string              // of sregfs
	files string              // soft and hard limit of its open files, for ulimit; "" for ours
	who   *syscall.Credential // who runs the programs; nil for us
}

func newWorld(t *testing.T, remotes ...string) *world {
	t.Helper()
	ocitest.Need(t, "fusermount3")
	w := &world{t: t, dir: t.TempDir(), umask: "022"}
	w.env = []string{
		"PATH=" + binaries + ":" + os.Getenv("PATH"), "HOME=" + w.dir, "LC_ALL=C", "TZ=UTC",
		"SREGFS_HOME=" + w.path("state"), "SREGFS_CACHE_DIR=" + w.path("cache"),
		"SREGISTRY_STORAGE=" + w.path("images"), "SREGFS_CONFIG=" + w.path("config.toml"),
	}
	must(t, os.WriteFile(w.path("config.toml"), nil, 0o600))
	for _, r := range remotes {
		w.args = append(w.args, "--remote", r)
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// A mounted is a running sregfs.
type mounted struct {
	w   *world
	dir string
	cmd *exec.Cmd
	log logText
}

// A logText is what a program prints, in a file: a pipe would stay open for as long as
// any process of it runs, and a buffer cannot be read meanwhile.
type logText struct{ path string }

func (l *logText) String() string {
	text, err := os.ReadFile(l.path)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// mount starts sregfs in the foreground and waits until the kernel has it.
func (w *world) mount(flags ...string) *mounted {
	w.t.Helper()
	m := &mounted{w: w, dir: w.path("mnt")}
	must(w.t, os.MkdirAll(m.dir, 0o755))
	args := append(append([]string{"-f"}, w.args...), flags...)
	script := "umask " + w.umask
	if soft, hard, ok := strings.Cut(w.files, " "); ok {
		script += "; ulimit -Sn " + soft + "; ulimit -Hn " + hard
	}
	m.cmd = exec.Command("sh", append([]string{"-c", script + `; exec "$0" "$@"`, binaries + "/sregfs"}, append(args, m.dir)...)...)
	m.cmd.Env = w.env
	f, err := os.CreateTemp(w.dir, "log-*")
	must(w.t, err)
	defer f.Close()
	m.log.path = f.Name()
	m.cmd.Stdout, m.cmd.Stderr = f, f
	must(w.t, m.cmd.Start())
	w.t.Cleanup(m.stop)
	w.eventually("the mount appears", func() bool {
		table, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && strings.Contains(string(table), " "+m.dir+" ")
	})
	// The mount is usable before the control socket is: wait for both.
	w.eventually("sreg reaches the mount", func() bool { return w.status().Mount != "" })
	return m
}

// stop ends the program as systemd would, and cleans up whatever is left.
func (m *mounted) stop() {
	if m.cmd.ProcessState != nil {
		return
	}
	must(m.w.t, m.cmd.Process.Signal(syscall.SIGTERM))
	done := make(chan error, 1)
	go func() { done <- m.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			m.w.t.Errorf("sregfs after SIGTERM: %v\n%s", err, &m.log)
		}
	case <-time.After(40 * time.Second):
		m.w.t.Errorf("sregfs does not end after SIGTERM\n%s", &m.log)
		_ = m.cmd.Process.Kill()
		<-done
	}
	m.detach()
}

// kill ends the program with SIGKILL and takes the dead mount away.
func (m *mounted) kill() {
	must(m.w.t, m.cmd.Process.Kill())
	_ = m.cmd.Wait()
	m.detach()
}

func (m *mounted) detach() { _ = exec.Command("fusermount3", "-uzq", m.dir).Run() }

func (m *mounted) path(name string) string { return filepath.Join(m.dir, name) }

// A result is what a command printed and how it ended.
type result struct {
	out, err string
	code     int
}

// run runs a program in this world, however it ends.
func (w *world) run(name string, args ...string) result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	bin := binaries
	if w.who != nil {
		bin = w.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: w.who}
	}
	switch name {
	case "sreg":
		args = append(w.args[:len(w.args):len(w.args)], args...)
		fallthrough
	case "sregfs":
		cmd.Path, cmd.Args, cmd.Err = bin+"/"+name, append([]string{name}, args...), nil
	}
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%s %q: %v", name, args, err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// background starts a program and leaves it running.
func (w *world) background(name string, args ...string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = w.env
	must(w.t, cmd.Start())
	return cmd
}

// ok runs a program that must succeed and returns what it printed.
func (w *world) ok(name string, args ...string) string {
	w.t.Helper()
	r := w.run(name, args...)
	if r.code != 0 {
		w.t.Fatalf("%s %q: exit %d\n%s%s", name, args, r.code, r.out, r.err)
	}
	return r.out
}

func (w *world) status() (s verbs.Status) {
	w.t.Helper()
	out := w.ok("sreg", "status", "-o", "json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		w.t.Fatalf("sreg status: %v\n%s", err, out)
	}
	return s
}

func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within 30 s: %s", what)
		}
		pause()
	}
}

// pause waits between two looks at another process, which nothing in this one can signal.
func pause() {
	timer := time.NewTimer(20 * time.Millisecond)
	<-timer.C
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
