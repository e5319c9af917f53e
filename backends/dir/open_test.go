// SPDX-License-Identifier: Apache-2.0

//go:build unix

package dir

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends"
)

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// No link leads out of the store: neither to read what its owner may read, nor to
// write there. Within the store links are files like others.
func TestLinks(t *testing.T) {
	t.Parallel()
	_, root := newStore(t)
	outside := t.TempDir()
	write(t, outside, "image.sif", []byte("hsqs outside"), time.Time{})
	write(t, root, "c/i/x.sif", []byte("hsqs x"), time.Time{})
	link(t, root, filepath.Join(outside, "store"))
	for name, target := range map[string]string{
		"absolute": filepath.Join(outside, "image.sif"), "passwd": "/etc/passwd", "relative": "../../../" + filepath.Base(outside) + "/image.sif",
		"twice": "absolute.sif", "loop": "loop.sif", "private": "../../.sregfs/lock", "up": "../../../../../../../etc/passwd",
	} {
		link(t, target, filepath.Join(root, "c/out", name+".sif"))
	}
	for name, target := range map[string]string{
		"relative": "../i/x.sif", "absolute": filepath.Join(root, "c/i/x.sif"), "twice": "relative.sif",
		"other": filepath.Join(outside, "store/c/i/x.sif"),
	} {
		link(t, target, filepath.Join(root, "c/in", name+".sif"))
	}
	link(t, outside, filepath.Join(root, "out"))
	link(t, outside, filepath.Join(root, "c/dir"))

	for _, path := range []string{root, filepath.Join(outside, "store")} {
		c := &client{path: path} // the store itself may be a link
		for _, tag := range []string{"relative", "absolute", "twice", "other"} {
			r := backends.Ref{Collection: "c", Name: "in", Tag: tag}
			img, err := c.Stat(t.Context(), r)
			if tag == "other" && path == root {
				if !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("a link by another name of the store: %v", err)
				}
				continue
			}
			if err != nil {
				t.Errorf("Stat(%s): %v", r, err)
				continue
			}
			body, err := c.Open(t.Context(), img, 0, -1)
			if err != nil {
				t.Errorf("Open(%s): %v", r, err)
				continue
			}
			if text, err := io.ReadAll(body); err != nil || string(text) != "hsqs x" {
				t.Errorf("%s: %q, %v", r, text, err)
			}
			body.Close()
		}
		for _, tag := range []string{"absolute", "passwd", "relative", "twice", "loop", "up"} {
			r := backends.Ref{Collection: "c", Name: "out", Tag: tag}
			if img, err := c.Stat(t.Context(), r); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("Stat(%s): %+v, %v", r, img, err)
			}
		}
	}
	c := &client{path: root}
	for _, r := range []backends.Ref{{Collection: "out", Name: "i", Tag: "t"}, {Collection: "c", Name: "dir", Tag: "t"}, {Collection: "c/dir", Name: "i", Tag: "t"}} {
		if _, err := c.Push(t.Context(), r, source("hsqs")); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Push(%s) through a link: %v", r, err)
		}
	}
	img, err := c.Stat(t.Context(), backends.Ref{Collection: "c", Name: "in", Tag: "relative"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "c/i/x.sif")); err != nil {
		t.Errorf("deleting a link: %v", err)
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 2 {
		t.Errorf("outside of the store: %v, %v", left, err)
	}
}

// A link that comes in the place of an image between the look and the open leads
// nowhere either.
func TestLinks_swapped(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	outside := t.TempDir()
	write(t, outside, "secret.sif", []byte("hsqs secret"), time.Time{})
	v := c.view()
	defer v.Close()
	link(t, filepath.Join(outside, "secret.sif"), filepath.Join(root, "c/i/t.sif"))
	link(t, outside, filepath.Join(root, "c/dir"))
	for _, f := range []file{{dir: "c/i", base: "t.sif"}, {dir: "c/dir", base: "secret.sif"}} {
		if got, err := v.openImage(f); err == nil {
			t.Errorf("opened %s", got.Name())
			got.Close()
		}
	}
}

// What is no image is not given out, whatever its name.
func TestOnlyImages(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	ext3 := make([]byte, 2048)
	binary.LittleEndian.PutUint16(ext3[1024+56:], 0xEF53)
	const launch = "#!/usr/bin/env run-singularity\n"
	for tag, want := range map[string]struct {
		content string
		image   bool
	}{
		"sif": {launch + "\x00SIF_MAGIC\x0001\x00", true}, "squashfs": {"hsqs", true}, "old-squashfs": {launch + "hsqs", true},
		"ext3": {string(ext3), true}, "old-ext3": {launch + string(ext3), true},
		"shadow": {"root:$y$j9T$:19000:0:99999:7:::\n", false}, "key": {"-----BEGIN OPENSSH PRIVATE KEY-----\n", false},
		"script": {"#!/bin/sh\nhsq", false}, "empty": {"", false},
	} {
		write(t, root, "c/i/"+tag+".sif", []byte(want.content), time.Time{})
		img, err := c.Stat(t.Context(), backends.Ref{Collection: "c", Name: "i", Tag: tag})
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.OpenFile(t.Context(), img)
		if err == nil {
			f.Close()
		}
		if (err == nil) != want.image || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

// within ends the test if fn waits.
func within(t *testing.T, what string, fn func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
	}
	t.Fatalf("%s waits for a pipe", what)
	return nil
}

// Somebody has put a pipe where a file is expected: nothing waits for him.
func TestPipes(t *testing.T) {
	t.Parallel()
	for _, at := range []string{".sregfs/images/c/i/.facts", ".sregfs/lock", ".sregfs/tmp", ".sregfs/images", "c/i/pipe.sif", "c/j", ""} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			c, root := newStore(t)
			write(t, root, "c/i/t.sif", []byte("hsqs"), time.Time{})
			fifo := filepath.Join(root, at)
			if at == "" {
				c.path, fifo = filepath.Join(root, "store"), filepath.Join(root, "store")
			}
			if err := os.MkdirAll(filepath.Dir(fifo), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(fifo, 0o666); err != nil {
				t.Fatal(err)
			}
			read := func() error {
				entries, err := backends.Collect(c.List(t.Context(), "c"))
				if err == nil && len(entries) == 0 {
					err = errors.New("nothing is listed")
				}
				img, statErr := c.Stat(t.Context(), ref)
				f, openErr := c.OpenFile(t.Context(), img)
				if openErr == nil {
					f.Close()
				}
				return errors.Join(err, statErr, openErr)
			}
			if err := within(t, "reading", read); err != nil && at != "" {
				t.Errorf("reading: %v", err)
			}
			_ = within(t, "writing", func() error { // it may be refused
				_, err := c.Push(t.Context(), backends.Ref{Collection: "c", Name: "i", Tag: "new"}, source("hsqs new"))
				return err
			})
			if err := within(t, "reading", read); err != nil && at != "" {
				t.Errorf("reading afterwards: %v", err)
			}
		})
	}
}

// The members of a group each see what the others stored as theirs: a mode that
// the umask allows, whichever way the bytes came.
func TestPush_mode(t *testing.T) {
	t.Parallel()
	c, root := newStore(t)
	var modes []fs.FileMode
	for i, give := range []bool{false, true} {
		src := source("hsqs")
		r := ref
		if r.Tag = "copied"; give {
			r.Tag = "given"
			src.Path, src.Give = filepath.Join(root, ".spool"), true
			write(t, root, ".spool", []byte("hsqs"), time.Time{})
			if err := os.Chmod(src.Path, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		push(t, c, r, src)
		info, err := os.Stat(filepath.Join(root, layout(r, sum([]byte("hsqs")), ".sif")))
		if err != nil {
			t.Fatalf("push %d: %v", i, err)
		}
		modes = append(modes, info.Mode())
	}
	if modes[0] != modes[1] || modes[0]&0o100 == 0 {
		t.Errorf("modes %v", modes)
	}
}
