// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
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
		err = fmt.Errorf("%s: %v: %s", strings.Join(words, " "), err, bytes.TrimSpace(exit.Stderr))
	}
	check(err)
	return strings.TrimSpace(string(out))
}

// sh runs a script of the shell, which sees args as $1 and so on, and ends at its
// first failure.
func (b *bench) sh(ctx context.Context, script string, args ...string) string {
	return output(ctx, nil, append([]string{"sh", "-euc", script, "sh"}, args...)...)
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

// machineScript prints a line for each field of a machine, and for each program.
const machineScript = `line() { "$@" 2>/dev/null | sed 1q | grep . || echo "$1: not there"; }
date -u "+%F %R UTC"
sed -n "s/^model name[^:]*: //p" /proc/cpuinfo | sed 1q | grep . || echo unknown
uname -sr
(. /etc/os-release; echo "$PRETTY_NAME")
line findmnt -no FSTYPE -T "${TMPDIR:-/tmp}"
awk '/MemTotal/ { printf "%.0f\n", $2 / 2^20 }' /proc/meminfo
line "$1" --version
line rclone version
line curl --version | cut -d" " -f1,2`

func (b *bench) thisMachine(ctx context.Context) machine {
	l := strings.Split(b.sh(ctx, machineScript, b.exe("sregfs")), "\n")
	return machine{l[0], l[1], l[2], l[3], l[4], runtime.NumCPU(), must(strconv.Atoi(l[5])), append(l[6:], runtime.Version())}
}

// kilobytes returns what stands behind a key of a file of "key: 123 kB" lines, in
// bytes.
func kilobytes(file, key string) int64 {
	_, rest, _ := strings.Cut(string(must(os.ReadFile(file))), "\n"+key)
	n, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	return must(strconv.ParseInt(n, 10, 64)) << 10
}
