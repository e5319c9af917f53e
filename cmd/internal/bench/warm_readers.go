// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A variant is a sregfs to compare.
type variant struct {
	name  string
	flags []string
	other bool // run by another user
}

var variants = []variant{
	{name: passthrough, flags: []string{"--allow-other"}},
	{name: pageCache, flags: []string{"--passthrough=off"}},
	{name: otherMounts, other: true},
}

// localReaders opens the same file natively, through sregfs and through rclone:
// every store holds another name of it.
func (b *bench) localReaders(ctx context.Context, dir string) (all []reader, daemons []*daemon, err error) {
	const name = "bench/big/1.sif"
	file := filepath.Join(dir, "native", name)
	if err := writeImage(file, b.size); err != nil {
		return nil, nil, err
	}
	all = []reader{{name: native, path: file}}
	for _, v := range variants {
		h, err := b.variantHome(v)
		if err != nil {
			return nil, daemons, err
		}
		h.storage = filepath.Join(h.dir, "images")
		if err := linkInto(file, filepath.Join(h.storage, name), h.other); err != nil {
			return nil, daemons, err
		}
		more, d, err := b.variantReaders(ctx, h, v, "local/bench/big:1.sif")
		if d != nil {
			daemons = append(daemons, d)
		}
		if err != nil {
			b.note("%s: no figures: %s.", v.name, firstLine(err))
			continue
		}
		all = append(all, more...)
	}
	d, err := b.rclone(ctx, ":local:"+filepath.Join(dir, "native"))
	if err != nil {
		return nil, daemons, err
	}
	all, daemons = append(all, reader{name: rcloneFull, path: d.path(name)}), append(daemons, d)
	return all, daemons, b.warmUp(ctx, all)
}

// pulledReaders opens an image that each sregfs has pulled; native is the file
// in the first one's cache.
func (b *bench) pulledReaders(ctx context.Context, dir string) (all []reader, daemons []*daemon, err error) {
	reg, err := openRegistry()
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, reg.close()) }()
	img, err := randomImage(dir, "bench/big", "1", b.size, 1)
	if err != nil {
		return nil, nil, err
	}
	reg.add(img)
	for _, v := range variants {
		h, err := b.variantHome(v)
		if err != nil {
			return nil, daemons, err
		}
		h.remotes = []string{"lab=oci,url=" + reg.url}
		if _, err := h.sreg(ctx, "pull", "--quiet", "lab://bench/big:1"); err != nil {
			return nil, daemons, err
		}
		if all == nil {
			blob, err := findFile(h.path("cache"), b.size)
			if err != nil {
				return nil, daemons, err
			}
			all = []reader{{name: native, path: blob}}
		}
		if err := settleFiles(h.path("cache")); err != nil {
			return nil, daemons, err
		}
		more, d, err := b.variantReaders(ctx, h, v, "lab/bench/big:1.sif")
		if d != nil {
			daemons = append(daemons, d)
		}
		if err != nil {
			b.note("%s: no figures: %s.", v.name, firstLine(err))
			continue
		}
		all = append(all, more...)
	}
	return all, daemons, b.warmUp(ctx, all)
}

func (b *bench) variantHome(v variant) (*home, error) {
	if v.other {
		return b.otherHome()
	}
	return b.newHome()
}

// variantReaders mounts h and returns who reads path there. The caller stops the
// daemon, also after an error.
func (b *bench) variantReaders(ctx context.Context, h *home, v variant, path string) ([]reader, *daemon, error) {
	d, err := h.mount(ctx, v.name, append(v.flags, "--list-ttl=24h")...)
	if err != nil {
		return nil, nil, err
	}
	all := []reader{{name: v.name, path: d.path(path), as: d.as}}
	status, err := h.sreg(ctx, "status")
	if err != nil {
		return nil, d, err
	}
	for line := range strings.Lines(status) {
		if state, ok := strings.CutPrefix(line, "passthrough"); ok {
			b.note("%s: passthrough is %s.", v.name, strings.TrimSpace(state))
		}
	}
	if v.name == passthrough {
		all = append(all, reader{name: otherReads, path: d.path(path), as: asNobody})
	}
	return all, d, nil
}

// warmUp reads everything once, so that every cache is warm.
func (b *bench) warmUp(ctx context.Context, all []reader) error {
	for _, r := range all {
		if _, err := b.measure(ctx, r.as, "sequential", r.path); err != nil {
			return fmt.Errorf("%s: %v", r.name, err)
		}
	}
	return nil
}

// linkInto gives file another name, in a store that may be the other user's.
func linkInto(file, name string, other bool) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if err := os.Link(file, name); err != nil || !other {
		return err
	}
	for dir := filepath.Dir(name); strings.Contains(dir, "/images"); dir = filepath.Dir(dir) {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return err
		}
	}
	return nil
}

// settleFiles puts the pages of all files below dir out of memory: when they are
// read again, all files lie in memory in the same way, however they were
// written.
func settleFiles(dir string) error {
	return eachFile(dir, func(path string, _ int64) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	})
}

// findFile returns a file of that size below dir.
func findFile(dir string, size int64) (found string, err error) {
	err = eachFile(dir, func(path string, n int64) error {
		if n == size {
			found = path
		}
		return nil
	})
	if err == nil && found == "" {
		err = fmt.Errorf("no file of %d bytes below %s", size, dir)
	}
	return found, err
}

func eachFile(dir string, do func(path string, size int64) error) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return do(path, info.Size())
	})
}
