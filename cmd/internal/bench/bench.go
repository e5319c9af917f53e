// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A subject is who did what is measured: "native", "sregfs", "rclone", "curl" …
type subject string

// A unit is what a figure counts: "MB/s", "ms", "bytes/size" …
type unit string

// lower reports whether less of it is better. Rates and shares are better high.
func (u unit) lower() bool { return !strings.HasSuffix(string(u), "/s") && u != "of 1" }

func (u unit) sign() string {
	if u.lower() {
		return "≤"
	}
	return "≥"
}

// A result is one figure of one subject, measured several times.
type result struct {
	Suite   string // heading of its table
	Name    string // what was done: "whole read, 50 ms round trip"
	Subject subject
	Unit    unit
	Runs    []float64 // one figure a run, in order
	Base    subject   `json:",omitempty"` // whom the ratio is of
	Target  string    `json:",omitempty"` // as a person reads it: "≥ 0.97 of native"
	Goal    float64   `json:",omitempty"` // the target as a number: a ratio if there is a base, else in the unit
	Met     *bool     `json:",omitempty"` // nil: not judged
}

func (r *result) median() float64 {
	s, n := slices.Sorted(slices.Values(r.Runs)), len(r.Runs)
	if n == 0 {
		return 0
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// A note is a sentence below the table of a suite: why a figure could not be
// taken, or what a figure means.
type note struct{ Suite, Text string }

// A record is what is kept in a file, to make the report again without measuring.
type record struct {
	Machine machine
	Runs    int   // of each measurement: 5 or more, unless quick
	Size    int64 // bytes of the image of the warm suite
	Results []*result
	Notes   []note
}

// A bench is one run of the chosen suites.
type bench struct {
	record
	bin     string // directory of the sregfs and sreg binaries; others may read it
	dir     string // scratch, on the disk that the figures are about
	quick   bool   // a try: smaller images, fewer names, fewer runs
	verbose bool   // suites may say more on standard error
	json    string // file for the results
	suite   string // heading of the suite that runs
	failed  error  // what went wrong in it without ending it
}

// add adds a figure to the running suite. Adding to the same name and subject
// again adds a run, so that subjects can take turns.
func (b *bench) add(name string, s subject, u unit, v float64) {
	r := b.find(b.suite, name, s)
	if r == nil {
		r = &result{Suite: b.suite, Name: name, Subject: s, Unit: u}
		b.Results = append(b.Results, r)
	}
	r.Runs = append(r.Runs, v)
}

// find returns a result that was added, or nil.
func (b *bench) find(suite, name string, s subject) *result {
	for _, r := range b.Results {
		if r.Suite == suite && r.Name == name && r.Subject == s {
			return r
		}
	}
	return nil
}

// median returns the median of what was added to the running suite, or 0.
func (b *bench) median(name string, s subject) float64 {
	return cmp.Or(b.find(b.suite, name, s), &result{}).median()
}

// compare gives the other results of that name a ratio of base.
func (b *bench) compare(name string, base subject) {
	for _, r := range b.Results {
		if r.Suite == b.suite && r.Name == name && r.Subject != base {
			r.Base = base
		}
	}
}

// aim judges a subject by its ratio of base, or by its figure where base is "":
// at least goal, or at most goal where lower is better. All runs must have been
// added.
func (b *bench) aim(name string, s, base subject, goal float64) {
	r := b.find(b.suite, name, s)
	if r == nil {
		return
	}
	value, of := r.median(), string(r.Unit)
	if base != "" {
		m := b.median(name, base)
		if m == 0 {
			return
		}
		r.Base = base
		value, of = value/m, "of "+string(base)
	}
	met := value >= goal
	if r.Unit.lower() {
		met = value <= goal
	}
	r.Goal, r.Met, r.Target = goal, &met, fmt.Sprintf("%s %s %s", r.Unit.sign(), figure(goal), of)
}

// limit judges a subject by its figure.
func (b *bench) limit(name string, s subject, goal float64) { b.aim(name, s, "", goal) }

// ratio returns r's median as a ratio of its base's.
func (b *bench) ratio(r *result) (float64, bool) {
	if r.Base == "" || r.Base == r.Subject || len(r.Runs) == 0 {
		return 0, false
	}
	of := cmp.Or(b.find(r.Suite, r.Name, r.Base), &result{}).median()
	return r.median() / of, of != 0
}

// note adds a sentence below the table of the running suite.
func (b *bench) note(format string, args ...any) {
	n := note{b.suite, fmt.Sprintf(format, args...)}
	if !slices.Contains(b.Notes, n) {
		b.Notes = append(b.Notes, n)
	}
}

// save writes everything that was added so far; load reads it.
func (b *bench) save(path string) error {
	data, err := json.MarshalIndent(b.record, "", "\t")
	return errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, append(data, '\n'), 0o644))
}

func (b *bench) load(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &b.record)
}

// logf says on standard error what is being done.
func (b *bench) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// scaled returns n, or a part of it in a quick run.
func (b *bench) scaled(n, part int64) int64 {
	if b.quick {
		return n / part
	}
	return n
}

// temp makes a scratch directory that any user may pass through.
func (b *bench) temp(pattern string) string {
	dir := must(os.MkdirTemp(b.dir, pattern))
	check(os.Chmod(dir, 0o755))
	return dir
}

func remove(dir string) { check(os.RemoveAll(dir)) }

// exe returns the path of one of the project's programs.
func (b *bench) exe(name string) string { return filepath.Join(b.bin, name) }
