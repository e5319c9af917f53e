// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// A suite measures one group and adds its results to the bench. An error loses
// no result that was added before it.
type suite struct {
	name  string // as -suite takes it
	about string // the heading of results that name none
	run   func(ctx context.Context, b *bench) error
}

// A result is one figure of one subject, measured several times.
type result struct {
	suite   string    // heading of its table, e.g. "Cold reads at 50 ms"
	name    string    // what was done: "whole read, 50 ms round trip"
	subject string    // who did it: "native", "sregfs", "rclone", "curl" …
	unit    string    // "MB/s", "reads/s", "ms", "MB", "bytes/size"
	lower   bool      // lower is better
	runs    []float64 // one figure a run, in order
	base    string    // subject that the ratio is of; "" = none
	target  string    // what was aimed for, as a person reads it: "≥ 0.97 of native"; "" = none
	met     *bool     // nil: not judged

	// goal is the target as a number: a ratio of the base if there is one, else
	// in the unit of runs. [bench.aim] and [bench.limit] set it; 0 = none.
	goal float64
}

func (r *result) median() float64 { return median(r.runs) }

// A bench is one run of the chosen suites.
type bench struct {
	bin     string // directory of the sregfs and sreg binaries; others may read it
	dir     string // scratch, on the disk that the figures are about
	size    int64  // bytes of the image of the warm suite
	runs    int    // runs of each measurement: 5 or more, unless quick
	quick   bool   // a try: smaller images, fewer names, fewer runs
	verbose bool   // suites may say more on standard error

	suite   string // heading of the suite that runs
	results []*result
	notes   []note
}

// A note is a sentence that belongs below the table of a suite: a figure that
// could not be taken and why, or what a figure means.
type note struct{ Suite, Text string }

// add takes a result; an empty suite is the heading of the running suite. Adding
// the same suite, name and subject again adds its runs to those there are, so
// that subjects can take turns.
func (b *bench) add(r result) {
	r.suite = cmp.Or(r.suite, b.suite)
	if old := b.find(r.suite, r.name, r.subject); old != nil {
		old.runs = append(old.runs, r.runs...)
		return
	}
	r.runs = slices.Clone(r.runs)
	b.results = append(b.results, &r)
}

// find returns a result that was added, or nil.
func (b *bench) find(suite, name, subject string) *result {
	i := slices.IndexFunc(b.results, func(r *result) bool {
		return r.suite == suite && r.name == name && r.subject == subject
	})
	if i < 0 {
		return nil
	}
	return b.results[i]
}

// median returns the median of what was added to the running suite, 0 if
// nothing was.
func (b *bench) median(name, subject string) float64 {
	if r := b.find(b.suite, name, subject); r != nil {
		return r.median()
	}
	return 0
}

// aim judges a subject by its ratio of base: at least goal, or at most goal
// where lower is better. All runs must have been added.
func (b *bench) aim(name, subject, base string, goal float64) {
	r, of := b.find(b.suite, name, subject), b.find(b.suite, name, base)
	if r == nil || of == nil || of.median() == 0 {
		return
	}
	ratio := r.median() / of.median()
	met := ratio >= goal
	if r.lower {
		met = ratio <= goal
	}
	r.base, r.goal, r.met = base, goal, &met
	r.target = fmt.Sprintf("%s %s of %s", sign(r.lower), figure(goal), base)
}

// limit judges a subject by its figure: at least goal, or at most goal where
// lower is better.
func (b *bench) limit(name, subject string, goal float64) {
	r := b.find(b.suite, name, subject)
	if r == nil {
		return
	}
	met := r.median() >= goal
	if r.lower {
		met = r.median() <= goal
	}
	r.goal, r.met = goal, &met
	r.target = fmt.Sprintf("%s %s %s", sign(r.lower), figure(goal), r.unit)
}

func sign(lower bool) string {
	if lower {
		return "≤"
	}
	return "≥"
}

// note adds a sentence below the table of the running suite.
func (b *bench) note(format string, args ...any) {
	n := note{Suite: b.suite, Text: fmt.Sprintf(format, args...)}
	if !slices.Contains(b.notes, n) {
		b.notes = append(b.notes, n)
	}
}

// logf says on standard error what is being done.
func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// temp makes a scratch directory that any user may pass through.
func (b *bench) temp(pattern string) (string, error) {
	dir, err := os.MkdirTemp(b.dir, pattern)
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// exe returns the path of one of the project's programs.
func (b *bench) exe(name string) string { return filepath.Join(b.bin, name) }

// base returns the result that r's ratio is of, or nil.
func (b *bench) base(r *result) *result {
	if r.base == "" || r.base == r.subject {
		return nil
	}
	return b.find(r.suite, r.name, r.base)
}

// ratio returns r's median as a ratio of its base's.
func (b *bench) ratio(r *result) (float64, bool) {
	of := b.base(r)
	if of == nil || len(of.runs) == 0 || len(r.runs) == 0 || of.median() == 0 {
		return 0, false
	}
	return r.median() / of.median(), true
}

func median(f []float64) float64 {
	if len(f) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(f))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
