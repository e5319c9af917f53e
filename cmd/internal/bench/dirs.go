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
	"time"
)

// A known is a sregfs whose catalogue knows many images of one remote. Its listings are young for as long as the bench runs.
type known struct {
	home  *home
	first map[string]time.Duration // how long the first listing of each took
	stop  func()
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

// newKnown lists all the collections once. The caller calls stop; no mount is
// left.
func newKnown(ctx context.Context, b *bench, all ...collection) (_ *known, err error) {
	repositories := make(map[string]int)
	for _, c := range all {
		for i := range c.repos {
			repositories[fmt.Sprintf("%s/tool%02d", c.dir, i)] = c.tags
		}
	}
	server := listings(repositories)
	k := &known{first: make(map[string]time.Duration), stop: server.Close}
	defer func() {
		if err != nil {
			k.stop()
		}
	}()
	if k.home, err = b.newHome("big=oci,url=" + server.URL); err != nil {
		return nil, err
	}
	d, err := k.mount(ctx)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	for _, c := range all {
		start := time.Now()
		if err := k.await(d.path(c.path()), c.names()); err != nil {
			return nil, err
		}
		k.first[c.dir] = time.Since(start)
		if !c.facts {
			continue
		}
		names := k.home.path("names")
		if err := writeNames(names, c.tags); err != nil {
			return nil, err
		}
		if _, err := b.measure(ctx, nil, "stat all", d.path(c.path())+"\n"+names); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// await lists until all names are there: a long listing is shown while it comes.
func (k *known) await(dir string, want int) error {
	deadline := time.Now().Add(5 * time.Minute)
	for {
		n, err := eachName(dir, func([]byte) error { return nil })
		if n == want {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("%s has %d names after 5 minutes, not %d", dir, n, want), err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (k *known) mount(ctx context.Context, flags ...string) (*daemon, error) {
	return k.home.mount(ctx, "sregfs", append(flags, "--list-ttl=24h")...)
}

// thousands are the collections of the directory suites; quick ones are smaller.
func thousands(b *bench) []collection {
	all := []collection{{"ten", 1, 10_000, true}, {"hundred", 1, 100_000, true}, {"million", 1, 1_000_000, false}}
	if b.quick {
		return all[:2]
	}
	return all
}

// dirs measures listing directories.
func dirs(ctx context.Context, b *bench) error {
	err := listAll(ctx, b, thousands(b))
	if !b.quick {
		err = errors.Join(err, listAll(ctx, b, []collection{{"repositories", 100, 10_000, false}}))
	}
	b.note("“First” is right after the start of a daemon that knows the names from before; “from sregfs” has the kernel's copy of the directory dropped before; “again” finds that copy.")
	return err
}

// listLimits are the most milliseconds that a listing may take.
var listLimits = map[int]struct{ names, attributes float64 }{10_000: {15, 150}, 100_000: {100, 1500}, 1_000_000: {1000, 0}}

func listAll(ctx context.Context, b *bench, all []collection) error {
	k, err := newKnown(ctx, b, all...)
	if err != nil {
		return err
	}
	defer k.stop()
	var failed error
	for _, c := range all {
		what := fmt.Sprintf("%s names", figure(float64(c.names())))
		if c.repos > 1 {
			what += fmt.Sprintf(" of %d repositories", c.repos)
		}
		b.add(result{name: what + ", from the registry", subject: "sregfs", unit: "ms", lower: true, runs: []float64{float64(k.first[c.dir].Milliseconds())}})
		plain, err := b.nativeNames(c)
		if err != nil {
			return err
		}
		for range b.runs {
			failed = errors.Join(failed, b.listOnce(ctx, k, c, what), b.listNative(ctx, plain, what))
		}
		limit := listLimits[c.names()]
		b.limit(what+", first", "sregfs", limit.names)
		b.limit(what+", from sregfs", "sregfs", limit.names)
		b.limit(what+", again", "sregfs", limit.names/2)
		b.limit(what+" with attributes", "sregfs", limit.attributes)
	}
	return failed
}

// listOnce lists one directory of a fresh mount, in each way.
func (b *bench) listOnce(ctx context.Context, k *known, c collection, what string) error {
	d, err := k.mount(ctx)
	if err != nil {
		return err
	}
	defer d.stop()
	for _, way := range []struct{ name, workload string }{
		{what + ", first", "list"}, {what + ", from sregfs", "drop, list"}, {what + ", again", "list"}, {what + " with attributes", "list with stat"},
	} {
		if way.workload == "list with stat" && c.names() > 100_000 {
			continue // a minute of the kernel's time, and nobody's use
		}
		v, err := b.measure(ctx, nil, way.workload, d.path(c.path()))
		if err != nil {
			return err
		}
		b.add(result{name: way.name, subject: "sregfs", unit: "ms", lower: true, runs: []float64{v}})
	}
	return nil
}

// nativeNames makes a directory of as many empty files, and returns "" where
// that would take too long.
func (b *bench) nativeNames(c collection) (string, error) {
	if c.names() > 100_000 {
		return "", nil
	}
	dir, err := b.temp("names-")
	if err != nil {
		return "", err
	}
	// As deep as in the mount.
	dir = filepath.Join(dir, "mnt", c.path())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for i := range c.names() {
		if err := os.WriteFile(filepath.Join(dir, "tool00:"+tagName(i)+".sif"), nil, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func (b *bench) listNative(ctx context.Context, dir, what string) error {
	if dir == "" {
		return nil
	}
	for _, way := range []struct{ name, workload string }{{what + ", again", "list"}, {what + " with attributes", "list with stat"}} {
		v, err := b.measure(ctx, nil, way.workload, dir)
		if err != nil {
			return err
		}
		b.add(result{name: way.name, subject: native, unit: "ms", lower: true, runs: []float64{v}})
	}
	return nil
}

// writeNames writes a file with n names of the first repository, for the stat
// workloads.
func writeNames(path string, n int) error {
	var w strings.Builder
	for i := range n {
		w.WriteString("tool00:" + tagName(i) + ".sif\n")
	}
	return os.WriteFile(path, []byte(w.String()), 0o644)
}
