// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// Subjects of more than one suite.
const (
	native      subject = "native"
	sregfs      subject = "sregfs"
	pageCache   subject = "sregfs, page cache"
	otherMounts subject = "sregfs of another user"
	otherReads  subject = "sregfs, another user reads"
	rclone      subject = "rclone"
)

// A reader is a way to read the same bytes.
type reader struct {
	subject
	path string
	as   []string // words before the command that reads
}

// readWorkloads are those of the warm suite: what the table calls them, what the
// child does for a mount, and for the native file, whose pages always stay. The
// targets are ratios of native: of those who read the file past the daemon
// (passthrough), and of the others.
var readWorkloads = []struct {
	name          string
	unit          unit
	mount, native string
	past, through float64
}{
	{"sequential, 1 MiB", "MB/s", "sequential", "sequential", 0.97, 0},
	{"random 4 KiB", "reads/s", "random 4K", "random 4K", 0.95, 0},
	{"random 4 KiB, 32 threads", "reads/s", "random 4K x32", "random 4K x32", 0, 0},
	{"random 128 KiB", "reads/s", "random 128K", "random 128K", 0.95, 0},
	{"random 128 KiB, 32 threads", "reads/s", "random 128K x32", "random 128K x32", 0, 0},
	{"sequential, 512 bytes", "MB/s", "small", "small", 0.9, 0},
	{"mapped, random page", "pages/s", "mapped", "mapped", 0.9, 0},
	{"open, 4 KiB, close", "times/s", "open", "open", 0, 0},
	// These leave the mount's pages in part: what is to find them all is above.
	{"sequential, 1 MiB, first read", "MB/s", "drop, sequential", "sequential", 0.97, 0.35},
	{"random 4 KiB, first read", "reads/s", "drop, 4K", "random 4K", 0, 0.06},
	{"random 128 KiB, first read", "reads/s", "drop, 128K", "random 128K", 0, 0.3},
}

// warm measures reads of bytes that are all in the machine's memory: of an image
// in the store of local, and of one that was pulled into the cache.
func warm(ctx context.Context, b *bench) {
	b.attempt(func() { b.warmOf(ctx, "Warm reads of an image of `local`", false) })
	b.attempt(func() { b.warmOf(ctx, "Warm reads of a pulled image", true) })
}

func (b *bench) warmOf(ctx context.Context, heading string, pulled bool) {
	b.suite = heading
	var w warmRig
	defer w.stop()
	w.open(ctx, b, pulled)
	for _, r := range w.readers { // so that every cache is warm
		b.measure(ctx, r.as, "sequential", r.path)
	}
	for _, load := range readWorkloads {
		for range b.Runs {
			for _, r := range w.readers {
				b.attempt(func() {
					what := load.mount
					if r.subject == native {
						what = load.native
					}
					v := b.measure(ctx, r.as, what, r.path)
					if b.verbose {
						b.logf("%s, %s: %s %s", load.name, r.subject, figure(v), load.unit)
					}
					b.add(load.name, r.subject, load.unit, v)
				})
			}
		}
		b.compare(load.name, native)
		for s, goal := range map[subject]float64{sregfs: load.past, otherReads: load.past, pageCache: load.through, otherMounts: load.through} {
			if goal > 0 {
				b.aim(load.name, s, native, goal)
			}
		}
	}
	if pulled {
		return
	}
	// The same runs again, as ratios of rclone's.
	name := readWorkloads[0].name
	b.suite = "Warm sequential reads against rclone"
	for _, s := range []subject{rclone, sregfs, pageCache} {
		if r := b.find(heading, name, s); r != nil {
			for _, v := range r.Runs {
				b.add(name, s, r.Unit, v)
			}
		}
	}
	b.aim(name, sregfs, rclone, 8)
	b.aim(name, pageCache, rclone, 2.5)
}

// A warmRig is all who read the same image.
type warmRig struct {
	readers []reader
	daemons []*daemon
}

func (w *warmRig) stop() {
	for _, d := range w.daemons {
		d.stop()
	}
}

// open makes an image and opens it natively and through each sregfs: each has
// pulled it, or has another name of the same file in its store. Of the latter
// rclone has one too; of what was pulled, native is the file in the first cache.
func (w *warmRig) open(ctx context.Context, b *bench, pulled bool) {
	const name = "bench/big/1.sif"
	dir, tree := b.temp("warm-"), "local/bench/big:1.sif"
	file := filepath.Join(dir, name)
	var remotes []string
	if pulled {
		reg := b.newRegistry()
		defer reg.Close()
		reg.add(b.randomImage("bench/big", "1", b.Size, 1))
		remotes, tree = []string{reg.remote()}, "lab/bench/big:1.sif"
	} else {
		writeImage(file, b.Size, 0)
		// The store of local opens only what begins as an image does.
		b.sh(ctx, `printf hsqs | dd of="$1" conv=notrunc,fsync status=none`, file)
		w.readers = []reader{{native, file, nil}}
	}
	for _, p := range []peer{
		{subject: sregfs, flags: []string{"--allow-other"}},
		{subject: pageCache, flags: []string{"--passthrough=off"}},
		{subject: otherMounts, other: true},
	} {
		h := b.newHome(p.other, remotes...)
		if pulled {
			h.sreg(ctx, "pull", "--quiet", "lab://bench/big:1")
			if w.readers == nil {
				blob := b.sh(ctx, `find "$1" -type f -size "$2c" | grep .`, h.path("cache"), fmt.Sprint(b.Size))
				w.readers = []reader{{native, blob, nil}}
			}
			b.sh(ctx, settleFiles, h.path("cache"))
		} else {
			h.link(ctx, file, name)
		}
		if err := try(func() { w.mount(ctx, h, p, tree) }); err != nil {
			line, _, _ := strings.Cut(err.Error(), "\n")
			b.note("%s: no figures: %s.", p.subject, line)
		}
	}
	if !pulled {
		d := b.rclone(ctx, ":local:"+dir)
		w.daemons, w.readers = append(w.daemons, d), append(w.readers, reader{rclone, d.path(name), nil})
	}
}

// mount adds those who read the image through a sregfs.
func (w *warmRig) mount(ctx context.Context, h *home, p peer, tree string) {
	d := h.mount(ctx, append(p.flags, "--list-ttl=24h")...)
	w.daemons = append(w.daemons, d)
	for line := range strings.Lines(h.sreg(ctx, "status")) {
		if state, ok := strings.CutPrefix(line, "passthrough"); ok {
			h.b.note("%s: passthrough is %s.", p.subject, strings.TrimSpace(state))
		}
	}
	w.readers = append(w.readers, reader{p.subject, d.path(tree), d.as})
	if p.subject == sregfs {
		w.readers = append(w.readers, reader{otherReads, d.path(tree), asNobody})
	}
}

// link gives file another name in the store.
func (h *home) link(ctx context.Context, file, name string) {
	h.b.sh(ctx, `mkdir -p "$1/${3%/*}"; ln "$2" "$1/$3"`, h.path("images"), file, name)
	if h.other { // not -R: the file is also root's
		h.b.sh(ctx, `find "$1" -type d -exec chown 65534:65534 {} +`, h.path("images"))
	}
}

// settleFiles puts the pages of all files below dir out of memory: when they are
// read again, all files lie in memory in the same way, however they were
// written.
const settleFiles = `find "$1" -type f -exec sync {} + -exec dd if={} iflag=nocache count=0 status=none ";"`
