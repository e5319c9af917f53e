// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// perFile is what the daemon keeps for a name that the kernel has looked up,
// until the kernel forgets it.
const perFile = "for each file that the kernel knows"

// memory measures what a daemon with a large catalogue holds in memory and on
// disk, and how long it takes to start.
func memory(ctx context.Context, b *bench) error {
	all := []collection{{"many", 1, 900_000, false}, {"hundred", 1, 100_000, true}}
	if b.quick {
		all[0].tags, all[1].tags = 90_000, 10_000
	}
	entries := all[0].names() + all[1].names()
	what := figure(float64(entries)) + " images known"
	k, err := newKnown(ctx, b, all...)
	if err != nil {
		return err
	}
	defer k.stop()
	size := int64(0)
	if err := eachFile(k.home.path("state"), func(_ string, n int64) error { size += n; return nil }); err != nil {
		return err
	}
	b.add(result{name: what + ": index on disk", subject: "sregfs", unit: "bytes/image", lower: true, runs: []float64{float64(size) / float64(entries)}})
	var failed error
	for range b.runs {
		failed = errors.Join(failed, b.memoryOnce(ctx, k, all, what))
	}
	for _, when := range []string{": idle after a start", ": idle after a listing"} {
		b.limit(what+when, "sregfs", 150)
	}
	b.limit(perFile, "sregfs", 600)
	b.limit(what+": start to the first answer", "sregfs", 2000)
	b.note("Memory is VmRSS of the daemon once it stays the same for some seconds, at most a minute later; the peak is VmHWM.")
	return errors.Join(failed, b.memoryOfEmpty(ctx))
}

func (b *bench) memoryOnce(ctx context.Context, k *known, all []collection, what string) error {
	start := time.Now()
	d, err := k.mount(ctx)
	if err != nil {
		return err
	}
	defer d.stop()
	if err := k.await(d.path("big"), len(all)); err != nil {
		return err
	}
	b.add(result{name: what + ": start to the first answer", subject: "sregfs", unit: "ms", lower: true, runs: []float64{since(start)}})
	if _, err := b.addSettled(d, what+": idle after a start"); err != nil {
		return err
	}
	for _, c := range all {
		if err := k.await(d.path(c.path()), c.names()); err != nil {
			return err
		}
	}
	before, err := b.addSettled(d, what+": idle after a listing")
	if err != nil {
		return err
	}
	looked := all[1]
	if _, err := b.measure(ctx, nil, "stat all", d.path(looked.path())+"\n"+k.home.path("names")); err != nil {
		return err
	}
	after, err := b.addSettled(d, what+", "+figure(float64(looked.names()))+" to the kernel: idle")
	if err != nil {
		return err
	}
	b.add(result{name: perFile, subject: "sregfs", unit: "bytes", lower: true, runs: []float64{float64(after-before) / float64(looked.names())}})
	peak, err := d.peakRSS()
	b.add(result{name: what + ": peak", subject: "sregfs", unit: "MB", lower: true, runs: []float64{float64(peak) / 1e6}})
	return err
}

// memoryOfEmpty measures what a daemon has that knows nothing.
func (b *bench) memoryOfEmpty(ctx context.Context) error {
	h, err := b.newHome()
	if err != nil {
		return err
	}
	for range b.runs {
		d, err := h.mount(ctx, "sregfs")
		if err != nil {
			return err
		}
		_, err = b.addSettled(d, "nothing known: idle after a start")
		d.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// addSettled adds the resident memory of d once it does not change any more, and
// returns it.
func (b *bench) addSettled(d *daemon, name string) (int64, error) {
	const step, most = 2 * time.Second, time.Minute
	last, same := int64(0), 0
	for waited := time.Duration(0); waited < most && same < 3; waited += step {
		time.Sleep(step)
		now, err := d.rss()
		if err != nil {
			return 0, fmt.Errorf("%s: %v", name, err)
		}
		same++
		if diff := now - last; diff > 1<<20 || diff < -1<<20 {
			same = 0
		}
		last = now
	}
	b.add(result{name: name, subject: "sregfs", unit: "MB", lower: true, runs: []float64{float64(last) / 1e6}})
	return last, nil
}
