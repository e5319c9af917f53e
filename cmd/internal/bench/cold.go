// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// perConnection is what one connection brings where it is limited: what a
// registry's storage gives one client, more or less.
const perConnection = 50e6

// A rig is a registry and an image in it that nobody has yet. The suites of this
// file measure what comes over a network: the registry and the link to it are in
// this process, and the same for all subjects.
type rig struct {
	b   *bench
	reg *registry
	img *image
}

// newRig makes one with a random image. The caller closes the registry.
func (b *bench) newRig(size int64) *rig {
	r := &rig{b, b.newRegistry(), b.randomImage("bench/cold", "1", b.scaled(size, 8), 1)}
	r.reg.add(r.img)
	return r
}

// remote is the registry as a remote of sregfs.
func (r *registry) remote() string { return "lab=oci,url=" + r.URL }

// A peer is who reads through a mount: rclone, or sregfs as it is started.
type peer struct {
	subject
	flags []string
	other bool // by a user without privileges
}

// with runs do on a new mount of the registry, of which nothing is left
// afterwards.
func (r *rig) with(ctx context.Context, p peer, do func(d *daemon)) {
	var d *daemon
	if p.subject == rclone {
		d = r.b.rclone(ctx, ":http:", "--http-url", r.reg.URL+"/files/")
	} else {
		d = r.b.newHome(p.other, r.reg.remote()).mount(ctx, p.flags...)
	}
	defer remove(filepath.Dir(d.dir))
	defer d.stop()
	if err := try(func() { do(d) }); err != nil {
		check(fmt.Errorf("%s: %w\n%s", p.subject, err, d.logText()))
	}
}

// explain says what the registry was asked since start, where that is asked for
// and the figure has no run yet.
func (r *rig) explain(name string, s subject, start time.Time) {
	if r.b.verbose && r.b.find(r.b.suite, name, s) == nil {
		r.b.logf("%s: %s, after %v", name, s, time.Since(start))
		r.reg.printTimeline(os.Stderr, start)
	}
}

// addRate adds how fast the whole image came.
func (r *rig) addRate(name string, s subject, took time.Duration) {
	r.b.add(name, s, "MB/s", float64(r.img.size)/1e6/took.Seconds())
}

// touchMemory uses memory once and gives it back. In a virtual machine memory that
// was never used costs a fault on the host, some microseconds a page: what is
// measured first, and writes the most to the page cache, would pay for it.
func touchMemory() {
	if size := min(6<<30, int(kilobytes("/proc/meminfo", "MemAvailable:"))/2); size > 0 {
		mem := must(unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS))
		for i := 0; i < len(mem); i += 4 << 10 {
			mem[i] = 1
		}
		check(unix.Munmap(mem))
	}
}

// A job does something once, with nothing left over from the time before, and
// returns how long that took.
type job struct {
	subject
	run func() time.Duration
}

// coldWhole measures reading all of an image that nobody has yet.
func coldWhole(ctx context.Context, b *bench) {
	r := b.newRig(512 << 20)
	defer r.reg.Close()
	b.note("%d MiB. The fastest of %d ways to run several curls at a time over the same link is what the others are compared with. "+
		"Checked is with openssl's SHA-256 afterwards; sregfs spends about a third of its CPU time on that. "+
		"A curl and an rclone alone leave the machine idle where the connection is limited: their runs go on side by side.",
		r.img.size>>20, len(parallels))
	touchMemory()
	for _, rtt := range []time.Duration{-1, 0, 20 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
		n := network{rtt: max(rtt, 0)}
		if rtt >= 0 {
			n.each = perConnection
		}
		r.reg.link.set(n)
		r.whole(ctx, n.String(), n.each > 0)
	}
}

// whole measures all subjects over the link as it is.
func (r *rig) whole(ctx context.Context, name string, limited bool) {
	const base subject = "parallel curl"
	through := func(p peer) job { return job{p.subject, func() time.Duration { return r.readThrough(ctx, name, p) }} }
	best := r.bestParallel(ctx, limited)
	r.b.note("%s: parallel curl is %v.", name, best)
	turns := []job{
		through(peer{subject: sregfs}),
		{base, func() time.Duration { return best.download(ctx, r, false) }},
		{"sreg pull", func() time.Duration { return r.pull(ctx) }},
		{base + ", checked", func() time.Duration { return best.download(ctx, r, true) }},
	}
	single := []job{{"curl", func() time.Duration { return r.curl(ctx) }}, through(peer{subject: rclone})}
	if !limited {
		// Nothing cold is read in passthrough: once is enough to see that.
		turns = append(turns, through(peer{subject: pageCache, flags: []string{"--passthrough=off"}}),
			through(peer{subject: "sregfs, another user", other: true}))
		turns, single = append(turns, single...), nil
	}
	for range r.b.Runs {
		for _, j := range turns {
			r.addRate(name, j.subject, j.run())
		}
	}
	for _, j := range single {
		took := make([]time.Duration, r.b.Runs)
		together(len(took), func(i int) { took[i] = j.run() })
		for _, d := range took {
			r.addRate(name, j.subject, d)
		}
	}
	r.b.compare(name, base)
	for _, s := range []subject{sregfs, pageCache, "sregfs, another user"} {
		r.b.aim(name, s, base, 0.9)
	}
	for _, s := range []subject{"curl", rclone} { // who has one connection
		met, f := r.b.median(name, sregfs) >= r.b.median(name, s), r.b.find(r.b.suite, name, s)
		f.Target, f.Met = "sregfs ≥ 1 of it", &met
	}
}

// bestParallel tries each way once. Where a connection is limited, fewer than 16
// of them bring less.
func (r *rig) bestParallel(ctx context.Context, limited bool) (best parallel) {
	fastest := time.Hour
	for _, p := range parallels {
		if limited && p.connections < 16 {
			continue
		}
		if took := p.download(ctx, r, false); took < fastest {
			best, fastest = p, took
		}
	}
	return best
}

// readThrough reads the whole image through a new mount whose listing knows it.
func (r *rig) readThrough(ctx context.Context, name string, p peer) (took time.Duration) {
	r.with(ctx, p, func(d *daemon) {
		file := d.file(r.img)
		timed(ctx, slices.Concat(d.as, []string{"stat", file})...)
		r.reg.forget()
		start := time.Now()
		took = readWhole(ctx, d.as, file)
		r.explain(name, p.subject, start)
	})
	return took
}

// readWhole reads a file in pieces of 1 MiB and throws it away, in a process of
// its own: the one that waits is not the one that serves.
func readWhole(ctx context.Context, as []string, file string) time.Duration {
	return timed(ctx, slices.Concat(as, []string{"dd", "if=" + file, "of=/dev/null", "bs=1M", "status=none"})...)
}

func (r *rig) pull(ctx context.Context) time.Duration {
	h := r.b.newHome(false, r.reg.remote())
	defer remove(h.dir)
	start := time.Now()
	h.sreg(ctx, "pull", "lab://"+r.img.repo+":"+r.img.tag)
	return time.Since(start)
}

// coldFirst measures open and the first 4 KiB. Who has a connection already
// needs one round trip for that, who has none needs two.
func coldFirst(ctx context.Context, b *bench) {
	const base subject = "ranged curl"
	const at = 50 * time.Millisecond
	r := b.newRig(512 << 20)
	defer r.reg.Close()
	r.reg.link.set(network{at, perConnection, 0})
	b.note("At %v. A known name is one that was looked at before, so that its size and digest are known; that leaves a connection open. "+
		"A new name is opened by who has asked the registry for nothing yet. curl asks for the blob by its digest.", at)
	ways := []struct {
		name          string
		known, hangUp bool // the file was looked at before; connections were closed after that
	}{{"known name, new connections", true, true}, {"known name, as it comes", true, false}, {"new name", false, false}}
	for range b.Runs {
		for _, w := range ways {
			b.add(w.name, base, "ms", ms(curlRange(ctx, r.reg.blobURL(r.img), 4<<10)))
			for _, s := range []subject{sregfs, rclone} {
				r.with(ctx, peer{subject: s}, func(d *daemon) { r.first(w.name, s, d.file(r.img), w.known, w.hangUp) })
			}
		}
	}
	for i, w := range ways {
		b.compare(w.name, base)
		if i < 2 {
			b.limit(w.name, sregfs, b.median(w.name, base)+5)
			b.find(b.suite, w.name, sregfs).Target = "≤ ranged curl + 5 ms"
		}
	}
}

// first opens a file and reads 4 KiB.
func (r *rig) first(name string, s subject, file string, known, hangUp bool) {
	if known {
		must(os.Stat(file))
	}
	if hangUp {
		r.reg.hangUp()
	}
	r.reg.forget()
	start := time.Now()
	f := must(os.Open(file))
	defer f.Close()
	must(io.ReadFull(f, make([]byte, 4<<10)))
	took := time.Since(start)
	r.explain(name, s, start)
	r.b.add(name, s, "ms", ms(took))
}

// coldFill measures how long somebody waits for 4 KiB that are not here, while
// the rest of the image comes in in the background and while it does not.
func coldFill(ctx context.Context, b *bench) {
	const (
		rtt = 20 * time.Millisecond
		// quietTime is how long after the first read the background certainly does
		// nothing yet, busyTime how long after it it certainly works.
		quietTime, busyTime = 800 * time.Millisecond, 2 * time.Second
	)
	r := b.newRig(512 << 20)
	defer r.reg.Close()
	b.note("Random reads of 4 KiB at %v; those of what is here already are left out. Idle is the first %v after an image is opened, "+
		"of several images, before the background begins.", rtt, quietTime)
	for i, name := range []string{"all share 100 MB/s", "10 MB/s a connection"} {
		r.reg.link.set([]network{{rtt, 0, 100e6}, {rtt, 10e6, 0}}[i])
		for range b.Runs {
			idle := append(r.demand(ctx, 0, quietTime, 0), r.demand(ctx, 0, quietTime, 1)...)
			busy := r.demand(ctx, busyTime, 2*quietTime, 2)
			if len(busy) < 10 {
				b.note("%s: a run while filling had only %d reads of what was not here yet.", name, len(busy))
			}
			r.addWaits(name, "idle", idle)
			r.addWaits(name, "while filling", busy)
		}
		b.compare(name+": p50", "idle")
		b.compare(name+": p99", "idle")
		b.aim(name+": p99", "while filling", "idle", 2)
	}
}

func (r *rig) addWaits(name string, s subject, took []time.Duration) {
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		if len(took) > 0 {
			r.b.add(fmt.Sprintf("%s: p%d", name, p), s, "ms", ms(took[(len(took)-1)*p/100]))
		}
	}
}

// demand opens the image on a new mount, reads once, waits, and then reads here
// and there for a while. It returns how long the reads took of what was not here.
func (r *rig) demand(ctx context.Context, wait, during time.Duration, seed uint64) (took []time.Duration) {
	r.with(ctx, peer{subject: sregfs}, func(d *daemon) {
		f := must(os.Open(d.file(r.img)))
		defer f.Close()
		rnd, buf := rand.New(rand.NewPCG(seed, 1)), make([]byte, 4<<10)
		must(f.ReadAt(buf, r.img.size/2))
		r.reg.forget()
		start := time.Now()
		time.Sleep(wait)
		for time.Since(start) < wait+during && ctx.Err() == nil {
			begin := time.Now()
			must(f.ReadAt(buf, rnd.Int64N(r.img.size-int64(len(buf)))))
			if one := time.Since(begin); one > 2*time.Millisecond { // else it was here
				took = append(took, one)
			}
		}
		if seed != 1 {
			r.explain(fmt.Sprintf("after %v, %d reads of what was not here", wait, len(took)), sregfs, start)
		}
		check(ctx.Err())
	})
	return took
}

// crowd counts what a registry sends when many open the same image, which has
// two names: half of them read all of it, the other half here and there.
func crowd(ctx context.Context, b *bench) {
	const openers = 64
	r := b.newRig(128 << 20)
	defer r.reg.Close()
	twin := newImage(r.img.repo, "twin", r.img.path)
	r.reg.add(twin)
	name := fmt.Sprintf("%d openers of %d MiB, ", openers, r.img.size>>20)
	b.note("Half of the openers read all in sequence, half read 4 KiB at 200 random places; half use the one tag of the image, half another one. " +
		"Every byte was compared. Counted at the registry; rclone has no notion of two names for the same bytes.")
	far := network{rtt: 20 * time.Millisecond, each: perConnection}
	for range b.Runs {
		for _, t := range []struct {
			subject subject
			network network
		}{{sregfs, network{}}, {sregfs, far}, {rclone, network{}}} {
			r.reg.link.set(t.network)
			r.with(ctx, peer{subject: t.subject}, func(d *daemon) {
				r.reg.forget()
				together(openers, func(i int) { r.compare(ctx, d.file([]*image{r.img, twin}[i/2%2]), i) })
			})
			b.add(name+t.network.String(), t.subject, "bytes/size", float64(r.reg.sent())/float64(r.img.size))
		}
	}
	b.limit(name+network{}.String(), sregfs, 1.02)
	b.limit(name+far.String(), sregfs, 1.02)
}

// compare reads a file and compares it with the image: all in order, or 4 KiB at
// each of 200 places.
func (r *rig) compare(ctx context.Context, file string, opener int) {
	f, want := must(os.Open(file)), must(os.Open(r.img.path))
	defer f.Close()
	defer want.Close()
	piece, n := int64(1<<20), (r.img.size+1<<20)>>20 // also where it ends
	next := func(i int64) int64 { return i * piece }
	if opener%2 == 1 {
		piece, n = 4<<10, 200
		rnd := rand.New(rand.NewPCG(uint64(opener), 0))
		next = func(int64) int64 { return rnd.Int64N(r.img.size - piece) }
	}
	got, right := make([]byte, piece), make([]byte, piece)
	for i := range n {
		check(ctx.Err())
		off := next(i)
		have, err := f.ReadAt(got, off)
		if !errors.Is(err, io.EOF) {
			check(err)
		}
		length, _ := want.ReadAt(right, off) // has all that the other may have
		if !bytes.Equal(got[:have], right[:length]) {
			check(fmt.Errorf("wrong bytes at %d", off))
		}
	}
}

// coldMany reads many cold images at the same time: whether each gets its share,
// whether the link is used, and what memory that takes.
func coldMany(ctx context.Context, b *bench) {
	const (
		fair, share, peak = "fairness among 20 images", "share of the link used", "memory of the daemon while 16 are read"
		// all is what the images come over together, in bytes a second, so that
		// they compete.
		all, rtt, count = 200e6, 20 * time.Millisecond, 20
	)
	r := &rig{b: b, reg: b.newRegistry()}
	defer r.reg.Close()
	size := b.scaled(48<<20, 8)
	var images []*image
	for i := range count {
		images = append(images, b.randomImage("bench/many", fmt.Sprint(i), size, byte(100+i)))
		r.reg.add(images[i])
	}
	b.note("%d images of %d MiB at %v over a link of %d MB/s that all connections share. Fairness is Jain's index of what each image had "+
		"when the first was whole: 1 is equal shares, %.2f is all for one.", count, size>>20, rtt, int(all/1e6), 1.0/count)
	for range b.Runs {
		r.reg.link.set(network{rtt, 0, all})
		r.withAll(ctx, images, func(_ *daemon, files []string) {
			read := make([]int64, len(files))
			r.reg.forget()
			start := time.Now()
			ctx, whole := context.WithCancel(ctx)
			defer whole()
			together(len(files), func(i int) {
				read[i] = readUntil(ctx, files[i])
				whole() // the race is over
			})
			used := float64(r.reg.sent()) / time.Since(start).Seconds() / all
			b.add(fair, sregfs, "of 1", jain(read))
			b.add(share, sregfs, "of 1", used)
		})
		r.reg.link.set(network{rtt, perConnection, 0})
		r.withAll(ctx, images[:16], func(d *daemon, files []string) {
			together(len(files), func(i int) { readWhole(ctx, nil, files[i]) })
			b.add(peak, sregfs, "MB", float64(d.resident("VmHWM"))/1e6)
		})
	}
	b.limit(fair, sregfs, 0.8)
	b.limit(share, sregfs, 0.9)
	b.limit(peak, sregfs, 300)
}

// withAll runs do on a new mount whose listing knows the images.
func (r *rig) withAll(ctx context.Context, images []*image, do func(d *daemon, files []string)) {
	r.with(ctx, peer{subject: sregfs}, func(d *daemon) {
		var files []string
		for _, img := range images {
			files = append(files, d.file(img))
			must(os.Stat(d.file(img)))
		}
		do(d, files)
	})
}

func jain(x []int64) float64 {
	var sum, squares float64
	for _, v := range x {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	return sum * sum / float64(len(x)) / cmp.Or(squares, 1)
}

// readUntil reads a file in order to its end, or until ctx ends, and returns how
// much that was.
func readUntil(ctx context.Context, file string) (total int64) {
	f := must(os.Open(file))
	defer f.Close()
	for buf := make([]byte, 1<<20); ctx.Err() == nil; {
		n, err := f.Read(buf)
		total += int64(n)
		if n == 0 || err != nil { // the end of the file; what else it may be shows in the total
			return total
		}
	}
	return total
}

// coldPush copies an image into the mount, which returns when it is published,
// against curl that uploads the blob alone.
func coldPush(ctx context.Context, b *bench) {
	const rtt, rate = 20 * time.Millisecond, 100e6 // bytes a second of each connection, to the registry
	img, _ := b.bigContainer(ctx, b.scaled(512<<20, 8))
	r := &rig{b, b.newRegistry(), img}
	defer r.reg.Close()
	r.reg.link.set(network{rtt: rtt})
	r.reg.link.up.Store(rate)
	name := fmt.Sprintf("%d MB at %v and %d MB/s", img.size/1e6, rtt, int(rate/1e6))
	b.note("cp returns when the image is checked, hashed, durable here and published there; curl sends a blob whose digest it was told.")
	for range b.Runs {
		r.with(ctx, peer{subject: sregfs}, func(d *daemon) {
			dir := d.path("lab/bench")
			check(os.MkdirAll(dir, 0o755))
			r.reg.forget()
			start := time.Now()
			took := timed(ctx, "cp", img.path, filepath.Join(dir, "pushed:1.sif"))
			r.explain(name, sregfs, start)
			if !r.reg.pushed("bench/pushed", "1") {
				check(errors.New("cp returned, but the registry has no such tag"))
			}
			r.addRate(name, sregfs, took)
		})
		start := time.Now()
		// As the distribution specification has it for one piece.
		upload := r.reg.URL + output(ctx, nil, "curl", "-sSf", "-X", "POST", "-o", os.DevNull, "-w", "%header{location}", r.reg.URL+"/v2/bench/pushed/blobs/uploads/")
		timed(ctx, "curl", "-sSf", "-X", "PATCH", "-o", os.DevNull, "-T", img.path, upload,
			"--next", "-sSf", "-X", "PUT", "-o", os.DevNull, upload+"?digest="+string(img.digest))
		r.addRate(name, "curl", time.Since(start))
		r.reg.pushed("bench/pushed", "1")
	}
	b.aim(name, sregfs, "curl", 0.9)
}
