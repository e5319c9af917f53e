// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}
