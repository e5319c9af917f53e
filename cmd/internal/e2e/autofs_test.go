// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// automount lets only its own process group through while it mounts, and so does
// systemd's: a mount that left it before it worked would wait for itself.
func TestAutomount(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "automount")
	if os.Getuid() != 0 {
		t.Skip("only root may run automount")
	}
	w := newWorld(t)
	w.ok("sreg", "add", greet, "demo/greet:1")
	auto, table := w.path("auto"), w.path("auto.map")
	must(t, os.Mkdir(auto, 0o755))
	must(t, os.WriteFile(table, []byte(fmt.Sprintf("img -fstype=fuse :%s/sregfs\\#sregfs\n", binaries)), 0o600))
	must(t, os.WriteFile(w.path("auto.master"), []byte(fmt.Sprintf("%s %s --timeout=600\n", auto, table)), 0o600))
	cmd := exec.Command("automount", "-f", "-v", "-p", w.path("auto.pid"), w.path("auto.master"))
	var log bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = w.env, &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, cmd.Start())
	mounted := func(dir string) bool {
		lines, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && strings.Contains(string(lines), " "+dir+" ")
	}
	t.Cleanup(func() {
		if t.Failed() { // it may wait for itself
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			_ = cmd.Wait()
		} else {
			must(t, exec.Command("fusermount3", "-u", auto+"/img").Run())
			must(t, cmd.Process.Signal(syscall.SIGTERM))
			must(t, cmd.Wait())
		}
		_ = exec.Command("umount", "-lq", auto+"/img", auto).Run()
	})
	w.eventually("automount watches", func() bool { return mounted(auto) })
	if r := w.run("timeout", "30", "ls", auto+"/img/local/demo"); r.code != 0 || r.out != "greet:1.sif\n" {
		t.Fatalf("ls: exit %d, %q, %q\n%s", r.code, r.out, r.err, &log)
	}
	daemon := w.status().PID
	if session, err := unix.Getsid(daemon); err != nil || session != daemon {
		t.Errorf("the mount is in the session %d of whoever started it, %v", session, err)
	}
}
