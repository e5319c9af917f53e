// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Package bench measures sregfs against the native file system, rclone and curl
// on one machine in one run, and writes docs/benchmarks.md with a plot. It is a
// developer's tool, run by "make bench"; its command is in _main, which wildcards
// skip, so that "go install ./cmd/..." does not install it.
//
// Each number is the median of several runs in which the subjects take turns
// (native, sregfs, rclone, native …), so that a slow minute of the machine hits
// all alike. Begin at [suites]: the table of what is measured. A suite calls
// [bench.add] for each figure and [bench.aim] or [bench.limit] for each target;
// [home.mount] and [bench.rclone] start what is measured. A suite ends at its
// first failure, as a test does: see [check].
package bench

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// A suite measures one group and adds its results to the bench. What it added
// before it failed is kept.
type suite struct {
	name  string // as -suite takes it
	about string // the heading of its table
	run   func(ctx context.Context, b *bench)
}

// suites is the table of what is measured, in the order of the report.
var suites = []suite{
	{"warm", "Warm reads", warm},
	{"names", "Listing directories", dirs},
	{"stat", "Attributes of 10,000 names", stat},
	{"memory", "Memory and start with a large catalogue", memory},
	{"folder", "A folder of files without an extension", folder},
	{"catalogue", "Commands with 100,000 images known", catalogue},
	{"cold", "Cold reads of a whole image", coldWhole},
	{"first", "Open and the first 4 KiB of a cold image", coldFirst},
	{"trace", "Running a program of a cold image", trace},
	{"fill", "Waiting for a piece while the rest comes in", coldFill},
	{"crowd", "Many readers of one cold image", crowd},
	{"many", "Many cold images at the same time", coldMany},
	{"push", "Pushing an image", coldPush},
}

type config struct {
	bench
	only string // suites, by name; "" = all
	from string // results of an earlier run
	json string // where results go
	docs string // directory of the report
}

// Main is the whole program.
func Main() {
	var c config
	flag.StringVar(&c.bin, "bin", ".build/bin", "`directory` of the sregfs and sreg binaries")
	flag.StringVar(&c.dir, "dir", "", "scratch `directory` (default $TMPDIR)")
	flag.StringVar(&c.only, "suite", "", "suites to run, by `names`, comma-separated (default all: "+names(suites)+")")
	flag.Int64Var(&c.Size, "size", 1<<30, "`bytes` of the image that is read warm")
	flag.IntVar(&c.Runs, "runs", 5, "runs of each measurement")
	flag.BoolVar(&c.quick, "quick", false, "a try: everything smaller, figures that prove nothing")
	flag.BoolVar(&c.verbose, "v", false, "say more on standard error")
	flag.StringVar(&c.from, "from", "", "run nothing: report the results in this `file`")
	flag.StringVar(&c.json, "json", "", "`file` for the results (default .build/bench.json, when all suites run, else .build/bench-part.json)")
	flag.StringVar(&c.docs, "docs", "", "`directory` for benchmarks.md and its plot (default docs, when all suites run)")
	measure := flag.String("measure", "", "used by the bench itself: run this `workload`, print its figure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := func() error { return c.main(ctx) }
	if *measure != "" {
		run = func() error { return try(func() { fmt.Println(measureHere(*measure, flag.Arg(0))) }) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// main runs and reports, also what the other suites brought where one failed.
func (c *config) main(ctx context.Context) error {
	if c.from != "" {
		if err := c.load(c.from); err != nil {
			return err
		}
		return errors.Join(c.print(os.Stdout), c.document(c.docs))
	}
	chosen, err := choose(c.only)
	if err != nil {
		return err
	}
	docs, json := "", ".build/bench-part.json"
	if c.only == "" && !c.quick {
		docs, json = "docs", ".build/bench.json"
	}
	c.docs, c.json = cmp.Or(c.docs, docs), cmp.Or(c.json, json)
	if c.quick {
		c.Runs, c.Size = min(c.Runs, 2), min(c.Size, 64<<20)
	}
	c.Machine = thisMachine(ctx, c.exe("sregfs"))
	failed := c.runAll(ctx, chosen)
	if ctx.Err() != nil {
		c.docs = "" // the page is of a whole run
	}
	return errors.Join(c.print(os.Stdout), c.document(c.docs), failed)
}

func (c *config) runAll(ctx context.Context, chosen []suite) (failed error) {
	var err error
	if c.dir, err = os.MkdirTemp(c.dir, "sregfs-bench-"); err != nil {
		return err
	}
	defer func() { failed = errors.Join(failed, removeScratch(c.dir)) }()
	if err := try(c.copyPrograms); err != nil {
		return err
	}
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		c.suite, c.failed = s.about, nil
		c.logf("%s", s.name)
		c.attempt(func() { s.run(ctx, &c.bench) })
		if c.failed != nil {
			failed = errors.Join(failed, fmt.Errorf("suite %s: %v", s.name, c.failed))
			c.note("The suite %s broke off: %s", s.name, firstLine(c.failed))
		}
		// After each suite, so that what was measured outlives a crash.
		failed = errors.Join(failed, c.save(c.json))
	}
	return errors.Join(failed, ctx.Err())
}

// copyPrograms makes the programs readable for the other user, who may not pass
// through the directories that they were built in.
func (c *config) copyPrograms() {
	to := filepath.Join(c.dir, "bin")
	check(errors.Join(os.Chmod(c.dir, 0o755), os.Mkdir(to, 0o755)))
	for name, from := range map[string]string{"sregfs": c.exe("sregfs"), "sreg": c.exe("sreg"), "bench": must(os.Executable())} {
		check(os.WriteFile(filepath.Join(to, name), must(os.ReadFile(from)), 0o755))
	}
	c.bin = to
}

func choose(only string) ([]suite, error) {
	if only == "" {
		return suites, nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no suite %q: there are %s", name, names(suites))
		}
		chosen = append(chosen, suites[i])
	}
	return chosen, nil
}

func names(all []suite) string {
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
