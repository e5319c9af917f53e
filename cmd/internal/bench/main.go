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
	{"vsif", "A container image as a SIF", containers},
	{"push", "Pushing an image", coldPush},
	{"s3", "Images in a bucket", buckets},
}

// Main is the whole program.
func Main() {
	var b bench
	flag.StringVar(&b.bin, "bin", ".build/bin", "`directory` of the sregfs and sreg binaries")
	flag.StringVar(&b.dir, "dir", "", "scratch `directory` (default $TMPDIR)")
	only := flag.String("suite", "", "suites to run, by `names`, comma-separated (default all: "+names()+")")
	flag.Int64Var(&b.Size, "size", 1<<30, "`bytes` of the image that is read warm")
	flag.IntVar(&b.Runs, "runs", 5, "runs of each measurement")
	flag.BoolVar(&b.quick, "quick", false, "a try: everything smaller, figures that prove nothing")
	flag.BoolVar(&b.verbose, "v", false, "say more on standard error")
	from := flag.String("from", "", "run nothing: report the results in this `file`")
	flag.StringVar(&b.json, "json", "", "`file` for the results (default .build/bench.json, when all suites run, else .build/bench-part.json)")
	docs := flag.String("docs", "", "`directory` for benchmarks.md and its plot (default docs, when all suites run)")
	measure := flag.String("measure", "", "used by the bench itself: run this `workload`, print its figure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	run := func() error { return b.main(ctx, *only, *docs) }
	switch {
	case *measure != "":
		run = func() error { return try(func() { fmt.Println(measureHere(*measure, flag.Arg(0))) }) }
	case *from != "":
		run = func() error { return errors.Join(b.load(*from), b.report(*docs)) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// main runs and reports, also what the other suites brought where one failed.
func (b *bench) main(ctx context.Context, only, docs string) error {
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	json := ".build/bench-part.json"
	if only == "" && !b.quick {
		docs, json = cmp.Or(docs, "docs"), ".build/bench.json"
	}
	b.json = cmp.Or(b.json, json)
	if b.quick {
		b.Runs, b.Size = min(b.Runs, 2), min(b.Size, 64<<20)
	}
	failed := b.runAll(ctx, chosen)
	if ctx.Err() != nil {
		docs = "" // the page is of a whole run
	}
	return errors.Join(b.report(docs), failed)
}

func (b *bench) runAll(ctx context.Context, chosen []suite) (failed error) {
	// The other user may not pass through the directories that the programs were
	// built in.
	const copyPrograms = `chmod 755 "$1"; mkdir "$1/bin"; cp "$2/sregfs" "$2/sreg" "$1/bin"; cp "$3" "$1/bin/bench"; chmod -R 755 "$1/bin"`
	scratch, err := os.MkdirTemp(b.dir, "sregfs-bench-")
	if err != nil {
		return err
	}
	defer func() {
		failed = errors.Join(failed, try(func() { b.sh(context.WithoutCancel(ctx), removeScratch, scratch) }))
	}()
	if err := try(func() {
		b.Machine = b.thisMachine(ctx)
		b.sh(ctx, copyPrograms, scratch, b.bin, must(os.Executable()))
	}); err != nil {
		return err
	}
	b.dir, b.bin = scratch, filepath.Join(scratch, "bin")
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		b.suite, b.failed = s.about, nil
		b.logf("%s", s.name)
		b.attempt(func() { s.run(ctx, b) })
		if b.failed != nil {
			failed = errors.Join(failed, fmt.Errorf("suite %s: %v", s.name, b.failed))
			line, _, _ := strings.Cut(b.failed.Error(), "\n")
			b.note("The suite %s broke off: %s", s.name, line)
		}
		// After each suite, so that what was measured outlives a crash.
		failed = errors.Join(failed, b.save(b.json))
	}
	return errors.Join(failed, ctx.Err())
}

func choose(only string) (chosen []suite, err error) {
	if only == "" {
		return suites, nil
	}
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no suite %q: there are %s", name, names())
		}
		chosen = append(chosen, suites[i])
	}
	return chosen, nil
}

func names() string {
	var names []string
	for _, s := range suites {
		names = append(names, s.name)
	}
	return strings.Join(names, ", ")
}
