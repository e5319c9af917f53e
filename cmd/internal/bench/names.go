// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A known is a sregfs whose catalogue knows many images of one remote. Its
// listings are young for as long as the bench runs.
type known struct {
	*home
	first map[string]time.Duration // how long the first listing of each took
	reg   *registry
}

// A collection is a directory of the remote "big".
type collection struct {
	dir   string // below the mount
	repos int
	tags  int  // of each repository
	facts bool // the attributes of the images are known, too
}

func (c collection) names() int { return c.repos * c.tags }

func (c collection) path() string { return "big/" + c.dir }

// newKnown lists all the collections once. The caller closes the registry; no
// mount is left.
func newKnown(ctx context.Context, b *bench, all ...collection) *known {
	k := &known{first: make(map[string]time.Duration), reg: b.newRegistry()}
	for _, c := range all {
		for i := range c.repos {
			k.reg.listed[fmt.Sprintf("%s/tool%02d", c.dir, i)] = c.tags
		}
	}
	k.home = b.newHome(false, "big=oci,url="+k.reg.URL)
	d := k.mount(ctx)
	defer d.stop()
	for _, c := range all {
		start := time.Now()
		await(d.path(c.path()), c.names())
		k.first[c.dir] = time.Since(start)
		if c.facts {
			writeNames(k.path("names"), c.tags)
			b.measure(ctx, nil, "stat all", d.path(c.path())+"\n"+k.path("names"))
		}
	}
	return k
}

// await lists until all names are there: a long listing is shown while it comes.
func await(dir string, want int) {
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		n := 0
		err := try(func() { n = countNames(dir) })
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			check(fmt.Errorf("%s has %d names after 5 minutes, not %d: %v", dir, n, want, err))
		}
	}
}

func (k *known) mount(ctx context.Context) *daemon { return k.home.mount(ctx, "--list-ttl=24h") }

// dirs measures listing directories.
func dirs(ctx context.Context, b *bench) {
	all := []collection{{"ten", 1, 10_000, true}, {"hundred", 1, 100_000, true}, {"million", 1, 1_000_000, false}}
	if b.quick {
		all = all[:2]
	}
	b.attempt(func() { b.listAll(ctx, all) })
	if !b.quick {
		b.attempt(func() { b.listAll(ctx, []collection{{"repositories", 100, 10_000, false}}) })
	}
	b.note("“First” is right after the start of a daemon that knows the names from before; “from sregfs” has the kernel's copy of the directory dropped before; “again” finds that copy.")
}

// listings are the ways to list a directory of a fresh mount.
var listings = []struct{ name, workload string }{
	{", first", "list"}, {", from sregfs", "drop, list"}, {", again", "list"}, {" with attributes", "list with stat"},
}

// listLimits are the most milliseconds that a listing may take.
var listLimits = map[int]struct{ names, attributes float64 }{10_000: {15, 150}, 100_000: {100, 1500}, 1_000_000: {1000, 0}}

func (b *bench) listAll(ctx context.Context, all []collection) {
	k := newKnown(ctx, b, all...)
	defer k.reg.Close()
	for _, c := range all {
		what, small := figure(float64(c.names()))+" names", c.names() <= 100_000
		if c.repos > 1 {
			what += fmt.Sprintf(" of %d repositories", c.repos)
		}
		b.add(what+", from the registry", sregfs, "ms", float64(k.first[c.dir].Milliseconds()))
		plain := filepath.Join(b.temp("names-"), "mnt", c.path()) // as deep as in the mount
		if small {
			writeNames(k.path("names"), c.tags)
			writeEmpty(plain, k.path("names"))
		}
		for range b.Runs {
			b.attempt(func() {
				d := k.mount(ctx)
				defer d.stop()
				b.list(ctx, sregfs, what, d.path(c.path()), 0, small)
			})
			if small {
				b.attempt(func() { b.list(ctx, native, what, plain, 2, true) })
			}
		}
		limit := listLimits[c.names()]
		b.limit(what+", first", sregfs, limit.names)
		b.limit(what+", from sregfs", sregfs, limit.names)
		b.limit(what+", again", sregfs, limit.names/2)
		b.limit(what+" with attributes", sregfs, limit.attributes)
	}
}

// list lists a directory in each way from one on.
func (b *bench) list(ctx context.Context, s subject, what, dir string, from int, small bool) {
	for _, way := range listings[from:] {
		// More than that is a minute of the kernel's time, and nobody's use.
		if small || way.workload != "list with stat" {
			b.add(what+way.name, s, "ms", b.measure(ctx, nil, way.workload, dir))
		}
	}
}

// writeNames writes a file with n names of the first repository, for the
// workloads of attributes.
func writeNames(path string, n int) {
	var w strings.Builder
	for i := range n {
		w.WriteString("tool00:" + tagName(i) + ".sif\n")
	}
	check(os.WriteFile(path, []byte(w.String()), 0o644))
}

// writeEmpty writes an empty file of each name.
func writeEmpty(dir, names string) {
	check(os.MkdirAll(dir, 0o755))
	for _, name := range namesIn(dir+"\n"+names, "") {
		check(os.WriteFile(name, nil, 0o644))
	}
}

// statWorkloads say what is asked in a mount; a fresh one for each.
var statWorkloads = []struct{ name, workload string }{
	{"new to the kernel, one thread", "stat"},
	{"new to the kernel, 8 threads", "stat x8"},
	{"known to the kernel", "stat again"},
	{"no such name, one thread", "stat of no name"},
}

// stat measures asking for attributes: of names that the kernel has not seen
// yet, which sregfs answers from its catalogue, and of those it has.
func stat(ctx context.Context, b *bench) {
	const count = 10_000
	const local subject = "sregfs, local"
	names := filepath.Join(b.dir, "names")
	writeNames(names, count)
	plain := filepath.Join(b.temp("stat-"), "mnt", "big", "ten") // as deep as in the mount
	writeEmpty(plain, names)
	k := newKnown(ctx, b, collection{"ten", 1, count, true})
	defer k.reg.Close()
	store := b.newHome(false)
	store.fill(names+".local", count)
	known := func(h *home, s subject, dir, names string) {
		for _, w := range statWorkloads {
			d := h.mount(ctx, "--list-ttl=24h")
			defer d.stop()
			// The daemon's first answer is not what is measured, nor, where the
			// store is a directory, reading it for the first time.
			countNames(d.path(dir))
			b.add(w.name, s, "files/s", b.measure(ctx, nil, w.workload, d.path(dir)+"\n"+names))
			d.stop()
		}
	}
	again := statWorkloads[2]
	for range b.Runs {
		b.attempt(func() { b.add(again.name, native, "files/s", b.measure(ctx, nil, again.workload, plain+"\n"+names)) })
		b.attempt(func() { known(k.home, sregfs, "big/ten", names) })
		b.attempt(func() { known(store, local, "local/bench", names+".local") })
	}
	for _, s := range []subject{sregfs, local} {
		b.aim(again.name, s, native, 0.8)
		b.limit("new to the kernel, one thread", s, 25_000)
		b.limit("no such name, one thread", s, 25_000)
	}
}

// fill writes a small image for each name that it writes into the file names into
// the store. Small, because the store is to know the digest of each.
func (h *home) fill(names string, count int) {
	var list strings.Builder
	for i := range count {
		image := fmt.Sprintf("tool%05d", i)
		fmt.Fprintln(&list, image+":latest.sif")
		file := h.path(filepath.Join("images", "bench", image, "latest.sif"))
		check(os.MkdirAll(filepath.Dir(file), 0o755))
		check(os.WriteFile(file, []byte(image), 0o644))
	}
	check(os.WriteFile(names, []byte(list.String()), 0o644))
}

// perFile is what the daemon keeps for a name that the kernel has looked up,
// until the kernel forgets it.
const perFile = "for each file that the kernel knows"

// memory measures what a daemon with a large catalogue holds in memory and on
// disk, and how long it takes to start.
func memory(ctx context.Context, b *bench) {
	all := []collection{{"many", 1, int(b.scaled(900_000, 10)), false}, {"hundred", 1, int(b.scaled(100_000, 10)), true}}
	entries := float64(all[0].names() + all[1].names())
	what := figure(entries) + " images known"
	k := newKnown(ctx, b, all...)
	defer k.reg.Close()
	size := b.sh(ctx, `find "$1" -type f -printf "%s\n" | awk '{ n += $1 } END { print n }'`, k.path("state"))
	b.add(what+": index on disk", sregfs, "bytes/image", must(strconv.ParseFloat(size, 64))/entries)
	for range b.Runs {
		b.attempt(func() { b.memoryOnce(ctx, k, all, what) })
	}
	for _, when := range []string{": idle after a start", ": idle after a listing"} {
		b.limit(what+when, sregfs, 150)
	}
	b.limit(perFile, sregfs, 600)
	b.limit(what+": start to the first answer", sregfs, 2000)
	b.note("Memory is VmRSS of the daemon once it stays the same for some seconds, at most a minute later; the peak is VmHWM.")
	empty := b.newHome(false)
	for range b.Runs {
		d := empty.mount(ctx)
		defer d.stop()
		b.addSettled(d, "nothing known: idle after a start")
		d.stop()
	}
}

func (b *bench) memoryOnce(ctx context.Context, k *known, all []collection, what string) {
	start := time.Now()
	d := k.mount(ctx)
	defer d.stop()
	await(d.path("big"), len(all))
	b.add(what+": start to the first answer", sregfs, "ms", ms(time.Since(start)))
	b.addSettled(d, what+": idle after a start")
	for _, c := range all {
		await(d.path(c.path()), c.names())
	}
	before := b.addSettled(d, what+": idle after a listing")
	looked, count := all[1], float64(all[1].names())
	b.measure(ctx, nil, "stat all", d.path(looked.path())+"\n"+k.path("names"))
	after := b.addSettled(d, what+", "+figure(count)+" to the kernel: idle")
	b.add(perFile, sregfs, "bytes", float64(after-before)/count)
	b.add(what+": peak", sregfs, "MB", float64(d.resident("VmHWM"))/1e6)
}

// addSettled adds the resident memory of d once it does not change any more, and
// returns it.
func (b *bench) addSettled(d *daemon, name string) int64 {
	const step, most = 2 * time.Second, time.Minute
	last, same := int64(0), 0
	for waited := time.Duration(0); waited < most && same < 3; waited += step {
		time.Sleep(step)
		now := d.resident("VmRSS")
		same++
		if diff := now - last; diff > 1<<20 || diff < -1<<20 {
			same = 0
		}
		last = now
	}
	b.add(name, sregfs, "MB", float64(last)/1e6)
	return last
}

// catalogue measures the commands that a person waits for, with 100,000 images
// known on one remote.
func catalogue(ctx context.Context, b *bench) {
	reg := b.newRegistry()
	defer reg.Close()
	for i := range 10 {
		reg.listed[fmt.Sprintf("team%02d/tool", i)] = 10_000
	}
	h := b.newHome(false)
	check(os.Mkdir(h.path("mnt"), 0o755))
	env := append(append(os.Environ(), h.env()...), "SREGFS_LIST_TTL=1h", "MNT="+h.path("mnt"), "URL="+reg.URL, "LC_ALL="+os.Getenv("LC_ALL"))
	sh := func(line string) { output(ctx, env, "sh", "-c", line) }
	const mount, unmount = `sregfs --remote big=oci,url=$URL $MNT`, `fusermount3 -u $MNT && sleep 0.5`
	sh(mount + ` && ls -R $MNT/big > /dev/null && sreg add --quiet ` + greetImage + ` local://demo/greet:1`)
	for _, m := range []struct{ name, before, line string }{
		{"start a mount", unmount, mount},
		{"ls of 10,000 tags, first time after a start", unmount + " && " + mount, "ls $MNT/big/team03 > /dev/null"},
		{"ls of 10,000 tags, again", "true", "ls $MNT/big/team03 > /dev/null"},
		{"sreg images", "true", "sreg images > /dev/null"},
		{"sreg images team03/tool:tag00000*", "true", "sreg images 'team03/tool:tag00000*' > /dev/null"},
		{"sreg search tag0004242", "true", "sreg search tag0004242 > /dev/null"},
		{"sreg get of a known image", "true", "sreg get demo/greet:1 > /dev/null"},
		{"sreg inspect of a known image", "true", "sreg inspect demo/greet:1 > /dev/null"},
		{"true (what starting a shell costs)", "true", "true"},
	} {
		for range b.Runs {
			sh(m.before)
			start := time.Now()
			sh(m.line)
			b.add(m.name, sregfs, "ms", ms(time.Since(start)))
		}
	}
	sh(unmount)
}
