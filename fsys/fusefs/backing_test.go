// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/fsys/fsystest"
	"github.com/sregfs/sregfs/fsys/fusefs"
	"github.com/sregfs/sregfs/fsys/fusefs/fusetest"
)

// Whatever disk the cache is on: what can be read past us is, what cannot is
// read through us, said once while mounting, and nothing fails.
func TestPassthrough_disks(t *testing.T) {
	t.Parallel()
	fsystest.Need(t, os.Geteuid() == 0, "root")
	tmpfs := mountAt(t, "tmpfs", "")
	once := overlayOn(t, t.TempDir(), mountAt(t, "tmpfs", ""))
	twice := overlayOn(t, overlayOn(t, t.TempDir(), mountAt(t, "tmpfs", "")), mountAt(t, "tmpfs", ""))
	tests := []struct{ name, disk, want string }{
		{"tmpfs", tmpfs, "on"},
		{"overlay", once, "on"}, // a container's own disk
		{"overlay on overlay", twice, "off: the kernel refuses files on these disks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log lines
			w := fsystest.New(t, fsystest.Options{OnDisk: tt.disk})
			content := fsystest.Image(300_000, 1)
			w.Service.Put("c/i:1", content)
			dir, m := fusetest.Mount(t, w.FS, fusefs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			if got := m.Status()["passthrough"]; got != tt.want {
				t.Errorf("passthrough after mounting is %q, want %q", got, tt.want)
			}
			for range 3 {
				got, err := os.ReadFile(filepath.Join(dir, "web/c/i:1.sif"))
				if err != nil || !bytes.Equal(got, content) {
					t.Fatalf("%d bytes read, %v", len(got), err)
				}
				if err := wait(t, w, "web://c/i:1"); err != nil {
					t.Fatal(err)
				}
			}
			if used := m.Status()["opens_passthrough"] != "0"; used != (tt.want == "on") {
				t.Errorf("openings: %v", m.Status())
			}
			said := strings.Count(log.String(), "passthrough=")
			if want := 0; tt.want == "on" && said != want || tt.want != "on" && said != 1 {
				t.Errorf("said %d times:\n%s", said, log.String())
			}
		})
	}
}

// mountAt mounts a file system on a directory for the time of the test.
func mountAt(t *testing.T, kind, data string) string {
	t.Helper()
	dir := t.TempDir()
	err := unix.Mount(kind, dir, kind, 0, data)
	fsystest.Need(t, err == nil, "mounting "+kind)
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// overlayOn mounts an overlay over lower, whose changes are in dir.
func overlayOn(t *testing.T, lower, dir string) string {
	t.Helper()
	options := "lowerdir=" + lower
	for _, part := range []string{"upperdir", "workdir"} {
		if err := os.Mkdir(filepath.Join(dir, part), 0o700); err != nil {
			t.Fatal(err)
		}
		options += "," + part + "=" + filepath.Join(dir, part)
	}
	return mountAt(t, "overlay", options)
}

// lines is a log that many goroutines write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
