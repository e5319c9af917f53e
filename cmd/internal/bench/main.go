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
// [home.mount] and [bench.rclone] start what is measured.
package bench

import (
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

// suites is the table of what is measured, in the order of the report.
func suites() []suite {
	return slices.Concat([]suite{
		{"warm", "Warm reads", warm},
		{"names", "Listing directories", dirs},
		{"stat", "Attributes of 10,000 names", stat},
		{"memory", "Memory and start with a large catalogue", memory},
		{"folder", "A folder of files without an extension", folder},
		{"catalogue", "Commands with 100,000 images known", catalogue},
	}, coldSuites())
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
	flag.StringVar(&c.only, "suite", "", "suites to run, by `names`, comma-separated (default all: "+names(suites())+")")
	flag.Int64Var(&c.size, "size", 1<<30, "`bytes` of the image that is read warm")
	flag.IntVar(&c.runs, "runs", 5, "runs of each measurement")
	flag.BoolVar(&c.quick, "quick", false, "a try: everything smaller, figures that prove nothing")
	flag.BoolVar(&c.verbose, "v", false, "say more on standard error")
	flag.StringVar(&c.from, "from", "", "run nothing: report the results in this `file`")
	flag.StringVar(&c.json, "json", "", "`file` for the results (default .build/bench.json, when all suites run, else .build/bench-part.json)")
	flag.StringVar(&c.docs, "docs", "", "`directory` for benchmarks.md and its plot (default docs, when all suites run)")
	measure := flag.String("measure", "", "used by the bench itself: run this `workload`, print its figure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := func() error {
		if *measure != "" {
			return measureHere(*measure, flag.Arg(0))
		}
		return c.main(ctx)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to stop
	}
}

// main runs and reports. Where a suite fails, the others' results are reported
// all the same.
func (c *config) main(ctx context.Context) error {
	if c.from != "" {
		b, m, err := load(c.from)
		if err != nil {
			return err
		}
		return errors.Join(b.print(os.Stdout), b.document(c.docs, m))
	}
	chosen, err := choose(c.only)
	if err != nil {
		return err
	}
	whole := c.only == "" && !c.quick
	if c.quick {
		c.runs, c.size = min(c.runs, 2), min(c.size, 64<<20)
	}
	if whole && c.docs == "" {
		c.docs = "docs"
	}
	if c.json == "" {
		c.json = pick(whole, ".build/bench.json", ".build/bench-part.json")
	}
	m := thisMachine(ctx, c.exe("sregfs"))
	failed := c.runAll(ctx, chosen, m)
	if ctx.Err() != nil {
		c.docs = "" // the page is of a whole run
	}
	return errors.Join(c.print(os.Stdout), c.document(c.docs, m), failed)
}

func (c *config) runAll(ctx context.Context, chosen []suite, m machine) (err error) {
	if c.dir, err = os.MkdirTemp(c.dir, "sregfs-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeScratch(c.dir)) }()
	if err := c.copyPrograms(); err != nil {
		return err
	}
	var failed error
	for _, s := range chosen {
		if ctx.Err() != nil {
			break
		}
		c.suite = s.about
		c.logf("%s", s.name)
		if err := s.run(ctx, &c.bench); err != nil {
			failed = errors.Join(failed, fmt.Errorf("suite %s: %v", s.name, err))
			c.note("The suite %s broke off: %s", s.name, firstLine(err))
		}
		// After each suite, so that what was measured outlives a crash.
		failed = errors.Join(failed, c.save(c.json, m))
	}
	return errors.Join(failed, ctx.Err())
}

// copyPrograms makes the programs readable for the other user, who may not pass
// through the directories that they were built in.
func (c *config) copyPrograms() error {
	if err := os.Chmod(c.dir, 0o755); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	to := filepath.Join(c.dir, "bin")
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for name, from := range map[string]string{"sregfs": c.exe("sregfs"), "sreg": c.exe("sreg"), "bench": self} {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), data, 0o755); err != nil {
			return err
		}
	}
	c.bin = to
	return nil
}

func choose(only string) ([]suite, error) {
	all := suites()
	if only == "" {
		return all, nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(s suite) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no suite %q: there are %s", name, names(all))
		}
		chosen = append(chosen, all[i])
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
