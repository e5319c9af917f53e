// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A failure is what check ends a suite with.
type failure struct{ error }

// check ends the running suite, workload or member of a group where err is not
// nil, as Fatal ends a test. Deferred calls run: daemons stop, files close.
func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// must returns v, or ends as check does.
func must[T any](v T, err error) T {
	check(err)
	return v
}

// try runs do and returns what check ended it with.
func try(do func()) (err error) {
	defer func() {
		switch f := recover().(type) {
		case nil:
		case failure:
			err = f.error
		default:
			panic(f)
		}
	}()
	do()
	return nil
}

// attempt does a part of a suite that goes on where that fails.
func (b *bench) attempt(do func()) { b.failed = errors.Join(b.failed, try(do)) }

// together does something n times at the same time.
func together(n int, do func(i int)) {
	var group errgroup.Group
	for i := range n {
		group.Go(func() error { return try(func() { do(i) }) })
	}
	check(group.Wait())
}

// output runs a command and returns what it printed. An env of nil is ours.
func output(ctx context.Context, env []string, words ...string) string {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = env
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%s: %v\n%s", strings.Join(words, " "), err, exit.Stderr)
	}
	check(err)
	return strings.TrimSpace(string(out))
}

// timed runs a command and returns how long that took.
func timed(ctx context.Context, words ...string) time.Duration {
	start := time.Now()
	output(ctx, nil, words...)
	return time.Since(start)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// A machine is where and with what the figures were taken.
type machine struct {
	Date, CPU, Kernel, System, Disk string
	CPUs, MemoryGiB                 int
	Programs                        []string // "rclone v1.60.1-DEV" …
}

func thisMachine(ctx context.Context, sregfs string) machine {
	first := func(words ...string) (line string) {
		if err := try(func() { line, _, _ = strings.Cut(output(ctx, nil, words...), "\n") }); err != nil {
			return words[0] + ": not there"
		}
		return strings.TrimSpace(line)
	}
	curl := strings.Fields(first("curl", "--version"))
	return machine{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPUs: runtime.NumCPU(), MemoryGiB: gib(value("/proc/meminfo", "MemTotal")),
		CPU: value("/proc/cpuinfo", "model name"), Kernel: first("uname", "-sr"),
		System: strings.Trim(value("/etc/os-release", "PRETTY_NAME"), `"`), Disk: first("findmnt", "-no", "FSTYPE", "-T", os.TempDir()),
		Programs: []string{
			first(sregfs, "--version"), first("rclone", "version"), strings.Join(curl[:min(2, len(curl))], " "), runtime.Version(),
		},
	}
}

// value returns what stands behind the first key of a file of "key: value" or
// "key=value" lines.
func value(path, key string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strings.TrimSpace(strings.TrimLeft(rest, " \t:="))
		}
	}
	return "unknown"
}

func gib(meminfo string) int {
	kib, _ := strconv.Atoi(strings.TrimSuffix(meminfo, " kB"))
	return (kib + 1<<19) >> 20
}
