// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A subject is a way to read the same bytes.
type subject struct{ name, path string }

// A mount is a subject with a process behind it.
type mount struct {
	subject
	dir string
	cmd *exec.Cmd
	log *os.File
}

func mountSregfs(ctx context.Context, c config, store string) (*mount, error) {
	return startSregfs(ctx, c, store, "sregfs")
}

func mountSregfsNoPassthrough(ctx context.Context, c config, store string) (*mount, error) {
	return startSregfs(ctx, c, store, "sregfs, no passthrough", "--passthrough=off")
}

func startSregfs(ctx context.Context, c config, store, name string, flags ...string) (*mount, error) {
	dir, err := os.MkdirTemp(c.dir, "mnt-")
	if err != nil {
		return nil, err
	}
	state := dir + ".state"
	config := state + ".toml"
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "sregfs"), append(flags, "-f", "--config", config, dir)...)
	cmd.Env = append(os.Environ(), "SREGFS_HOME="+state, "SREGFS_CACHE_DIR="+state+"/cache", "SREGISTRY_STORAGE="+store)
	m := &mount{subject: subject{name: name, path: filepath.Join(dir, "local/bench/big:1.sif")}, dir: dir, cmd: cmd}
	return m, m.start()
}

func mountRclone(ctx context.Context, c config, store string) (*mount, error) {
	dir, err := os.MkdirTemp(c.dir, "mnt-")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "rclone", "mount", "--config", "/dev/null", "--vfs-cache-mode", "full",
		"--cache-dir", dir+".cache", ":local:"+store, dir)
	m := &mount{subject: subject{name: "rclone", path: filepath.Join(dir, "bench/big/1.sif")}, dir: dir, cmd: cmd}
	return m, m.start()
}

// start starts the process, waits for the file to appear and reads it once, so
// that every cache is warm.
func (m *mount) start() (err error) {
	if m.log, err = os.CreateTemp("", "bench-*.log"); err != nil {
		return err
	}
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		return err
	}
	for range 200 {
		if f, err := os.Open(m.path); err == nil {
			_, err = io.Copy(io.Discard, f)
			f.Close()
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	text, _ := os.ReadFile(m.log.Name())
	m.stop()
	return fmt.Errorf("%s: no %s after 10 s\n%s", m.name, m.path, text)
}

func (m *mount) stop() {
	// Both programs unmount on SIGTERM.
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	_ = m.cmd.Wait()
	_ = exec.Command("fusermount3", "-uzq", m.dir).Run()
	_ = m.log.Close()
	_ = os.Remove(m.log.Name())
}
