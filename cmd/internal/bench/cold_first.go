// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"
)

// firstRTT is the round-trip time at which the first byte is waited for.
const firstRTT = 50 * time.Millisecond

// coldFirst measures open and the first 4 KiB. Who has a connection already
// needs one round trip for that, who has none needs two.
func coldFirst(ctx context.Context, b *bench) (err error) {
	r, err := newColdRig(b, 512<<20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.reg.close()) }()
	r.reg.link.set(firstRTT, perConnection, 0)
	const (
		alone  = "known name, new connections"
		coming = "known name, as it comes"
		anew   = "new name"
	)
	b.note("At %v. A known name is one that was looked at before, so that its size and digest are known; that leaves a connection open. "+
		"A new name is opened by who has asked the registry for nothing yet. curl asks for the blob by its digest.", firstRTT)
	for range b.runs {
		turns := map[string][]try{
			alone: {
				{"ranged curl", r.firstByCurl},
				{"sregfs", func(ctx context.Context) (time.Duration, error) { return r.firstBySregfs(ctx, alone, true, true) }},
				{"rclone", func(ctx context.Context) (time.Duration, error) { return r.firstByRclone(ctx, true, true) }},
			},
			coming: {
				{"ranged curl", r.firstByCurl},
				{"sregfs", func(ctx context.Context) (time.Duration, error) { return r.firstBySregfs(ctx, coming, true, false) }},
				{"rclone", func(ctx context.Context) (time.Duration, error) { return r.firstByRclone(ctx, true, false) }},
			},
			anew: {
				{"ranged curl", r.firstByCurl},
				{"sregfs", func(ctx context.Context) (time.Duration, error) { return r.firstBySregfs(ctx, anew, false, false) }},
				{"rclone", func(ctx context.Context) (time.Duration, error) { return r.firstByRclone(ctx, false, false) }},
			},
		}
		for _, name := range []string{alone, coming, anew} {
			for _, t := range turns[name] {
				took, err := t.run(ctx)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", name, t.subject, err)
				}
				b.add(result{name: name, subject: t.subject, unit: "ms", lower: true, base: "ranged curl", runs: []float64{milliseconds(took)}})
			}
		}
	}
	for _, name := range []string{alone, coming} {
		b.limit(name, "sregfs", b.median(name, "ranged curl")+5)
		if f := b.find(b.suite, name, "sregfs"); f != nil {
			f.target = "≤ ranged curl + 5 ms"
		}
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (r *coldRig) firstByCurl(ctx context.Context) (time.Duration, error) {
	return curlRange(ctx, r.blobURL(), 0, 4<<10)
}

// firstBySregfs measures on a new mount: of a known file if it was looked at
// before, on new connections if those there were are closed then.
func (r *coldRig) firstBySregfs(ctx context.Context, name string, known, hangUp bool) (took time.Duration, err error) {
	h, err := r.b.newHome(r.remote())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	d, err := h.mount(ctx, "sregfs")
	if err != nil {
		return 0, err
	}
	defer d.stop()
	took, err = r.firstOf(d.path(r.img.inTree()), known, hangUp, func(start time.Time, took time.Duration) {
		if r.b.verbose && r.b.median(name, "sregfs") == 0 {
			r.b.logf("%s: sregfs had 4 KiB after %v", name, took)
			r.reg.printTimeline(os.Stderr, start)
		}
	})
	return took, err
}

func (r *coldRig) firstByRclone(ctx context.Context, known, hangUp bool) (took time.Duration, err error) {
	d, err := r.b.rclone(ctx, ":http:", "--http-url", r.reg.url+"/files/")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(path.Dir(d.dir))) }()
	defer d.stop()
	return r.firstOf(d.path(r.img.inFiles()), known, hangUp, func(time.Time, time.Duration) {})
}

// firstOf opens a file and reads 4 KiB.
func (r *coldRig) firstOf(file string, known, hangUp bool, done func(start time.Time, took time.Duration)) (time.Duration, error) {
	if known {
		if _, err := os.Stat(file); err != nil {
			return 0, err
		}
	}
	if hangUp {
		r.reg.hangUp()
	}
	r.reg.forget()
	start := time.Now()
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	_, err = io.ReadFull(f, make([]byte, 4<<10))
	took := time.Since(start)
	done(start, took)
	return took, err
}
