// SPDX-License-Identifier: Apache-2.0

package statedir_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

// A child with this set holds the directory it names until its stdin ends.
const holdEnv = "SREGFS_TEST_HOLD"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
		return
	}
	os.Exit(m.Run())
}

func hold(path string) {
	d, err := statedir.Lock(path)
	if err == nil {
		err = d.Announce("/run/test.sock", "/mnt/test", "colon")
	}
	fmt.Println(err == nil, err)
	io.Copy(io.Discard, os.Stdin)
	if err == nil {
		d.Unlock()
	}
}

// holder starts a child that holds path.
func holder(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "true") {
		t.Fatalf("child: %q, %v", line, err)
	}
	return cmd
}

func lock(t *testing.T, path string) *statedir.Dir {
	t.Helper()
	d, err := statedir.Lock(path)
	if err != nil {
		t.Fatalf("Lock: %v", err)
	}
	t.Cleanup(func() { d.Unlock() })
	return d
}

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a", "state")
	d := lock(t, path)
	for name, want := range map[string]fs.FileMode{path: 0o700 | fs.ModeDir, filepath.Join(path, "lock"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if err := d.Announce("/run/x.sock", "/mnt/x", "plus"); err != nil {
		t.Fatal(err)
	}
	got, err := statedir.Holder(path)
	if err != nil || got.PID != os.Getpid() || got.Socket != "/run/x.sock" || got.Mount != "/mnt/x" || got.Names != "plus" || time.Since(got.Start) > time.Minute {
		t.Errorf("Holder = %+v, %v, want this process", got, err)
	}
	for range 2 {
		if err := d.Unlock(); err != nil {
			t.Errorf("Unlock: %v", err)
		}
	}
	if got, err := statedir.Holder(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Unlock: Holder = %+v, %v, want fs.ErrNotExist", got, err)
	}
	lock(t, path)
}

func TestLock_held(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	child := holder(t, path)
	_, err := statedir.Lock(path)
	held, ok := errors.AsType[*statedir.HeldError](err)
	if !ok {
		t.Fatalf("Lock: %v, want a HeldError", err)
	}
	if p := held.Holder; p.PID != child.Process.Pid || p.Socket != "/run/test.sock" || p.Mount != "/mnt/test" || p.Host == "" {
		t.Errorf("holder %+v, want pid %d", p, child.Process.Pid)
	}
	for _, part := range []string{path, fmt.Sprint("pid ", child.Process.Pid), "since", "/run/test.sock", "/mnt/test"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
	got, err := statedir.Holder(path)
	if diff := cmp.Diff(held.Holder, got); err != nil || diff != "" {
		t.Errorf("Holder: %v\n%s", err, diff)
	}
}

func TestLock_holderKilled(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	child := holder(t, path)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	text, err := os.ReadFile(filepath.Join(path, "lock"))
	if err != nil || !json.Valid(text) || !strings.Contains(string(text), "/mnt/test") {
		t.Fatalf("nothing stale in the lock file: %q, %v", text, err)
	}
	if got, err := statedir.Holder(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Holder = %+v, %v, want fs.ErrNotExist", got, err)
	}
	lock(t, path)
	if got, err := statedir.Holder(path); err != nil || got.PID != os.Getpid() || got.Mount != "" {
		t.Errorf("Holder = %+v, %v, want this process only", got, err)
	}
}

// Asking does not keep anybody from taking the directory, and two never have it.
func TestLock_crowd(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	lock(t, path).Unlock()
	done := make(chan struct{})
	var askers, takers sync.WaitGroup
	for range 2 {
		askers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					if _, err := statedir.Holder(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("Holder: %v", err)
					}
				}
			}
		})
	}
	for range 50 {
		d, err := statedir.Lock(path)
		if err != nil {
			t.Errorf("Lock: %v", err)
			continue
		}
		d.Unlock()
	}
	close(done)
	askers.Wait()

	var mu sync.Mutex
	var have int
	for range 8 {
		takers.Go(func() {
			if d, err := statedir.Lock(path); err == nil {
				mu.Lock()
				have++
				mu.Unlock()
				t.Cleanup(func() { d.Unlock() })
			}
		})
	}
	takers.Wait()
	if have != 1 {
		t.Errorf("%d hold the directory, want 1", have)
	}
}

func TestLock_damagedFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "lock"), []byte("{\"pid\": \x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Holder(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Holder: %v, want fs.ErrNotExist", err)
	}
	lock(t, path)
	if got, err := statedir.Holder(path); err != nil || got.PID != os.Getpid() {
		t.Errorf("Holder = %+v, %v", got, err)
	}
}

func TestLock_openToOthers(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	lock(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode(), err)
	}
}

// A directory of something else keeps its mode, and what everybody could have
// written is not trusted.
func TestLock_strangeDirectory(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		mode fs.FileMode
		file string
		ok   bool
	}{
		"something else":     {0o755, "bin", false},
		"like /tmp":          {0o777, "x", false},
		"world-writable":     {0o777, "lock", false},
		"closed":             {0o700, "bin", true},
		"a state directory":  {0o755, "lock", true},
		"a shared one":       {0o775, "lock", true},
		"empty, for anybody": {0o777, "", true},
		"its own log":        {0o755, "sregfs.log", true},
	} {
		path := t.TempDir()
		if tt.file != "" {
			if err := os.WriteFile(filepath.Join(path, tt.file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		d, err := statedir.Lock(path)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
		want := tt.mode
		if tt.ok {
			want = 0o700
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v, want %v", name, info.Mode(), err, want)
		}
		if d != nil {
			if err := d.Unlock(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestLock_link(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Symlink("elsewhere", filepath.Join(path, "lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := statedir.Lock(path); err == nil {
		t.Error("Lock follows a symbolic link")
	}
	if _, err := os.Lstat(filepath.Join(path, "elsewhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target was made: %v", err)
	}
}

func TestLock_notOurs(t *testing.T) {
	t.Parallel()
	needRoot(t)
	path := t.TempDir()
	if err := os.Chown(path, 4243, -1); err != nil {
		t.Fatal(err)
	}
	_, err := statedir.Lock(path)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "uid 4243") {
		t.Errorf("Lock: %v, want fs.ErrPermission that names the owner", err)
	}
}

// needRoot skips a test that needs root; with SREGFS_NOSKIP=1 it fails.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("SREGFS_NOSKIP") == "1" {
		t.Fatal("needs root")
	}
	t.Skip("needs root")
}
