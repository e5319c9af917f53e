// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A reader is a way to read the same bytes.
type reader struct {
	name string
	path string
	as   []string // words before the command that reads
}

// Subjects of the warm suite.
const (
	native      = "native"
	passthrough = "sregfs"
	pageCache   = "sregfs, page cache"
	otherMounts = "sregfs of another user"
	otherReads  = "sregfs, another user reads"
	rcloneFull  = "rclone"
)

const (
	warmLocal  = "Warm reads of an image of `local`"
	warmPulled = "Warm reads of a pulled image"
)

// readWorkloads are those of the warm suite: what the table calls them, what
// the child does for a mount, and for the native file, whose pages always stay.
var readWorkloads = []struct{ name, unit, mount, native string }{
	{"sequential, 1 MiB", "MB/s", "sequential", "sequential"},
	{"random 4 KiB", "reads/s", "random 4K", "random 4K"},
	{"random 4 KiB, 32 threads", "reads/s", "random 4K x32", "random 4K x32"},
	{"random 128 KiB", "reads/s", "random 128K", "random 128K"},
	{"random 128 KiB, 32 threads", "reads/s", "random 128K x32", "random 128K x32"},
	{"sequential, 512 bytes", "MB/s", "small", "small"},
	{"mapped, random page", "pages/s", "mapped", "mapped"},
	{"open, 4 KiB, close", "times/s", "open", "open"},
	// These leave the mount's pages in part: what is to find them all is above.
	{"sequential, 1 MiB, first read", "MB/s", "drop, sequential", "sequential"},
	{"random 4 KiB, first read", "reads/s", "drop, 4K", "random 4K"},
	{"random 128 KiB, first read", "reads/s", "drop, 128K", "random 128K"},
}

// warmAims are the targets: of native, except those with a base.
var warmAims = []struct {
	workload string
	subjects []string
	goal     float64
}{
	{"sequential, 1 MiB", []string{passthrough, otherReads}, 0.97},
	{"sequential, 1 MiB, first read", []string{passthrough, otherReads}, 0.97},
	{"sequential, 1 MiB, first read", []string{pageCache, otherMounts}, 0.35},
	{"random 4 KiB", []string{passthrough, otherReads}, 0.95},
	{"random 4 KiB, first read", []string{pageCache, otherMounts}, 0.06},
	{"random 128 KiB", []string{passthrough, otherReads}, 0.95},
	{"random 128 KiB, first read", []string{pageCache, otherMounts}, 0.3},
	{"sequential, 512 bytes", []string{passthrough, otherReads}, 0.9},
	{"mapped, random page", []string{passthrough, otherReads}, 0.9},
}

// warm measures reads of bytes that are all in the machine's memory: of an image
// in the store of local, and of one that was pulled into the cache.
func warm(ctx context.Context, b *bench) error {
	return errors.Join(warmOf(ctx, b, warmLocal, (*bench).localReaders), warmOf(ctx, b, warmPulled, (*bench).pulledReaders))
}

func warmOf(ctx context.Context, b *bench, heading string, open func(*bench, context.Context, string) ([]reader, []*daemon, error)) error {
	b.suite = heading
	dir, err := b.temp("warm-")
	if err != nil {
		return err
	}
	readers, daemons, err := open(b, ctx, dir)
	defer func() {
		for _, d := range daemons {
			d.stop()
		}
	}()
	if err != nil {
		return err
	}
	var failed error
	for _, w := range readWorkloads {
		for range b.runs {
			for _, r := range readers {
				failed = errors.Join(failed, b.readOnce(ctx, r, w.name, w.unit, pick(r.name == native, w.native, w.mount)))
			}
		}
	}
	b.judgeWarm(heading, readers)
	return failed
}

func (b *bench) readOnce(ctx context.Context, r reader, name, unit, workload string) error {
	v, err := b.measure(ctx, r.as, workload, r.path)
	if err != nil {
		return fmt.Errorf("%s: %v", r.name, err)
	}
	if b.verbose {
		b.logf("%s, %s: %s %s", name, r.name, figure(v), unit)
	}
	base := native
	if r.name == native {
		base = ""
	}
	b.add(result{name: name, subject: r.name, unit: unit, base: base, runs: []float64{v}})
	return nil
}

func (b *bench) judgeWarm(heading string, readers []reader) {
	for _, a := range warmAims {
		for _, s := range a.subjects {
			b.aim(a.workload, s, native, a.goal)
		}
	}
	if !slices.ContainsFunc(readers, func(r reader) bool { return r.name == rcloneFull }) {
		return
	}
	// The same runs again, as ratios of rclone's.
	const workload = "sequential, 1 MiB"
	b.suite = "Warm sequential reads against rclone"
	for _, s := range []string{rcloneFull, passthrough, pageCache} {
		if r := b.find(heading, workload, s); r != nil {
			b.add(result{name: workload, subject: s, unit: r.unit, runs: r.runs})
		}
	}
	b.aim(workload, passthrough, rcloneFull, 8)
	b.aim(workload, pageCache, rcloneFull, 2.5)
	b.suite = heading
}

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
		if d == nil {
			b.note("%s: no figures: %s.", v.name, firstLine(err))
			continue
		}
		all, daemons = append(all, more...), append(daemons, d)
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
		if d == nil {
			b.note("%s: no figures: %s.", v.name, firstLine(err))
			continue
		}
		all, daemons = append(all, more...), append(daemons, d)
	}
	return all, daemons, b.warmUp(ctx, all)
}

func (b *bench) variantHome(v variant) (*home, error) {
	if v.other {
		return b.otherHome()
	}
	return b.newHome()
}

// variantReaders mounts h and returns who reads path there.
func (b *bench) variantReaders(ctx context.Context, h *home, v variant, path string) ([]reader, *daemon, error) {
	d, err := h.mount(ctx, v.name, append(v.flags, "--list-ttl=24h")...)
	if err != nil {
		return nil, nil, err
	}
	all := []reader{{name: v.name, path: d.path(path), as: d.as}}
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

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
