// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// coldWhole measures reading all of an image that nobody has yet.
func coldWhole(ctx context.Context, b *bench) (err error) {
	r, err := newColdRig(b, 512<<20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.reg.close()) }()
	b.note("%d MiB. The fastest of %d ways to run several curls at a time over the same link is what the others are compared with. "+
		"Checked is with openssl's SHA-256 afterwards; sregfs spends about a third of its CPU time on that. "+
		"A curl and an rclone alone leave the machine idle where the connection is limited: their runs go on side by side.",
		r.img.size>>20, len(parallels))
	if err := touchMemory(); err != nil {
		return err
	}
	for _, l := range coldLinks {
		r.reg.link.set(l.rtt, l.rate, 0)
		if err := r.whole(ctx, l.String(), l.rate > 0); err != nil {
			return err
		}
	}
	return nil
}

// whole measures all subjects over the link as it is.
func (r *coldRig) whole(ctx context.Context, name string, limited bool) error {
	best, err := r.bestParallel(ctx, limited)
	if err != nil {
		return err
	}
	r.b.note("%s: parallel curl is %v.", name, best)
	turns := []try{
		{"sregfs", func(ctx context.Context) (time.Duration, error) { return r.throughSregfs(ctx, way{trace: name}) }},
		{"parallel curl", func(ctx context.Context) (time.Duration, error) {
			return best.download(ctx, r.b, r.blobURL(), r.img.size, "")
		}},
		{"sreg pull", r.pull},
		{"parallel curl, checked", func(ctx context.Context) (time.Duration, error) {
			return best.download(ctx, r.b, r.blobURL(), r.img.size, r.img.digest)
		}},
	}
	single := []try{
		{"curl", func(ctx context.Context) (time.Duration, error) { return r.b.curlFile(ctx, r.blobURL()) }},
		{"rclone", r.throughRclone},
	}
	if !limited {
		// Nothing cold is read in passthrough: once is enough to see that.
		turns = append(turns, try{"sregfs, page cache", func(ctx context.Context) (time.Duration, error) {
			return r.throughSregfs(ctx, way{flags: []string{"--passthrough=off"}})
		}}, try{"sregfs, another user", func(ctx context.Context) (time.Duration, error) {
			return r.throughSregfs(ctx, way{other: true})
		}})
		turns, single = append(turns, single...), nil
	}
	for i := range r.b.runs {
		for _, t := range turns {
			if err := r.measure(ctx, name, t); err != nil {
				return fmt.Errorf("%s, run %d: %w", name, i+1, err)
			}
		}
	}
	for _, t := range single {
		if err := r.sideBySide(ctx, name, t); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	r.judge(name)
	return nil
}

// bestParallel tries each way once. Where a connection is limited, fewer than 16
// of them bring less.
func (r *coldRig) bestParallel(ctx context.Context, limited bool) (best parallel, err error) {
	fastest := time.Hour
	for _, p := range parallels {
		if limited && p.connections < 16 {
			continue
		}
		took, err := p.download(ctx, r.b, r.blobURL(), r.img.size, "")
		if err != nil {
			return best, err
		}
		if took < fastest {
			best, fastest = p, took
		}
	}
	return best, nil
}

func (r *coldRig) measure(ctx context.Context, name string, t try) error {
	took, err := t.run(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", t.subject, err)
	}
	r.b.add(result{name: name, subject: t.subject, unit: "MB/s", runs: []float64{float64(r.img.size) / 1e6 / took.Seconds()}})
	return nil
}

// sideBySide measures all runs of one subject at the same time.
func (r *coldRig) sideBySide(ctx context.Context, name string, t try) error {
	took := make([]time.Duration, r.b.runs)
	group, ctx := errgroup.WithContext(ctx)
	for i := range took {
		group.Go(func() (err error) {
			took[i], err = t.run(ctx)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("%s: %w", t.subject, err)
	}
	for _, d := range took {
		r.b.add(result{name: name, subject: t.subject, unit: "MB/s", runs: []float64{float64(r.img.size) / 1e6 / d.Seconds()}})
	}
	return nil
}

// judge compares: with the parallel curl by ratio, and with who has one
// connection by who is first.
func (r *coldRig) judge(name string) {
	b := r.b
	for _, subject := range []string{"sregfs", "sregfs, page cache", "sregfs, another user"} {
		b.aim(name, subject, "parallel curl", 0.9)
	}
	for _, subject := range []string{"sreg pull", "parallel curl, checked", "curl", "rclone"} {
		if f := b.find(b.suite, name, subject); f != nil {
			f.base = "parallel curl"
		}
	}
	for _, subject := range []string{"curl", "rclone"} {
		if f := b.find(b.suite, name, subject); f != nil {
			met := b.median(name, "sregfs") >= f.median()
			f.target, f.met = "sregfs ≥ 1 of it", &met
		}
	}
}

// A way is how sregfs is started for a whole read.
type way struct {
	flags []string
	other bool   // by a user without privileges
	trace string // the figure whose first run shows its requests, if that is asked for
}

// throughSregfs reads the whole image through a new mount whose listing knows it.
func (r *coldRig) throughSregfs(ctx context.Context, w way) (took time.Duration, err error) {
	newHome := r.b.newHome
	if w.other {
		newHome = r.b.otherHome
	}
	h, err := newHome(r.remote())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	d, err := h.mount(ctx, "sregfs", w.flags...)
	if err != nil {
		return 0, err
	}
	defer d.stop()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, d.logText())
		}
	}()
	file := d.path(r.img.inTree())
	if _, err := timedAs(ctx, d.as, "stat", file); err != nil {
		return 0, err
	}
	before := cpuTime(d.cmd.Process.Pid)
	r.reg.forget()
	start := time.Now()
	took, err = readWhole(ctx, d.as, file)
	if r.b.verbose && w.trace != "" && r.b.median(w.trace, "sregfs") == 0 {
		r.b.logf("%s: sregfs read all in %v, with %v of a CPU", w.trace, took, cpuTime(d.cmd.Process.Pid)-before)
		r.reg.printTimeline(os.Stderr, start)
	}
	return took, err
}

// cpuTime returns how long a process has had a CPU, 0 if that cannot be told.
func cpuTime(pid int) time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The name of the program, which may hold anything, ends at the last ")".
	_, rest := cutLast(string(text), ")")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on all of Linux
}

// readWhole reads a file in pieces of 1 MiB and throws it away, in a process of
// its own: the one that waits is not the one that serves.
func readWhole(ctx context.Context, as []string, file string) (time.Duration, error) {
	return timedAs(ctx, as, "dd", "if="+file, "of=/dev/null", "bs=1M", "status=none")
}

func (r *coldRig) pull(ctx context.Context) (took time.Duration, err error) {
	h, err := r.b.newHome(r.remote())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	start := time.Now()
	_, err = h.sreg(ctx, "pull", "lab://"+r.img.repo+":"+r.img.tag)
	return time.Since(start), err
}

func (r *coldRig) throughRclone(ctx context.Context) (took time.Duration, err error) {
	d, err := r.b.rclone(ctx, ":http:", "--http-url", r.reg.url+"/files/")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(path.Dir(d.dir))) }()
	defer d.stop()
	file := d.path(r.img.inFiles())
	if _, err := os.Stat(file); err != nil {
		return 0, err
	}
	return readWhole(ctx, nil, file)
}
