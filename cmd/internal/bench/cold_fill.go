// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

const (
	fillRTT = 20 * time.Millisecond
	// quietTime is how long after the first read the background certainly does
	// nothing yet, busyTime how long after it it certainly works.
	quietTime = 800 * time.Millisecond
	busyTime  = 2 * time.Second
	// A read that takes no longer than this was answered from what is here.
	atOnce = 2 * time.Millisecond
)

// coldFill measures how long somebody waits for 4 KiB that are not here, while
// the rest of the image comes in in the background and while it does not.
func coldFill(ctx context.Context, b *bench) (err error) {
	r, err := newColdRig(b, 512<<20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.reg.close()) }()
	b.note("Random reads of 4 KiB at %v; those of what is here already are left out. Idle is the first %v after an image is opened, "+
		"of several images, before the background begins.", fillRTT, quietTime)
	for _, l := range []struct {
		name      string
		each, all int64
	}{{"all share 100 MB/s", 0, 100e6}, {"10 MB/s a connection", 10e6, 0}} {
		r.reg.link.set(fillRTT, l.each, l.all)
		for range b.runs {
			if err := r.fillTurn(ctx, l.name); err != nil {
				return err
			}
		}
		b.aim(l.name+": p99", "while filling", "idle", 2)
	}
	return nil
}

func (r *coldRig) fillTurn(ctx context.Context, name string) error {
	const sessions = 2
	var idle []time.Duration
	for i := range uint64(sessions) {
		some, err := r.demand(ctx, 0, quietTime, i)
		if err != nil {
			return err
		}
		idle = append(idle, some...)
	}
	busy, err := r.demand(ctx, busyTime, sessions*quietTime, sessions)
	if err != nil {
		return err
	}
	if len(busy) < 10 {
		r.b.note("%s: a run while filling had only %d reads of what was not here yet.", name, len(busy))
	}
	for subject, took := range map[string][]time.Duration{"idle": idle, "while filling": busy} {
		if len(took) == 0 {
			continue
		}
		slices.Sort(took)
		for _, p := range []int{50, 99} {
			r.b.add(result{
				name: fmt.Sprintf("%s: p%d", name, p), subject: subject, unit: "ms", lower: true, base: "idle",
				runs: []float64{milliseconds(took[(len(took)-1)*p/100])},
			})
		}
	}
	return nil
}

// demand opens the image on a new mount, reads once, waits, and then reads here
// and there for a while. It returns how long the reads took of what was not here.
func (r *coldRig) demand(ctx context.Context, wait, during time.Duration, seed uint64) (took []time.Duration, err error) {
	h, err := r.b.newHome(r.remote())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	d, err := h.mount(ctx, "sregfs")
	if err != nil {
		return nil, err
	}
	defer d.stop()
	f, err := os.Open(d.path(r.img.inTree()))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rnd := rand.New(rand.NewPCG(seed, 1))
	buf := make([]byte, 4<<10)
	if _, err := f.ReadAt(buf, r.img.size/2); err != nil {
		return nil, err
	}
	r.reg.forget()
	start := time.Now()
	time.Sleep(wait)
	for time.Since(start) < wait+during && ctx.Err() == nil {
		begin := time.Now()
		if _, err := f.ReadAt(buf, rnd.Int64N(r.img.size-int64(len(buf)))); err != nil {
			return nil, err
		}
		if one := time.Since(begin); one > atOnce {
			took = append(took, one)
		}
	}
	if r.b.verbose && seed != 1 {
		r.b.logf("waited %v: %d reads of what was not here, the registry sent %d MB", wait, len(took), r.reg.traffic().bytes/1e6)
		r.reg.printTimeline(os.Stderr, start)
	}
	return took, ctx.Err()
}
