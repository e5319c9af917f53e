// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A workload does something with the file or directory at path and returns a
// figure. It runs in a process of its own, which may be another user's in
// another mount namespace; starting that process is not measured.
type workload func(path string) (float64, error)

// workloads are those that a child process can be asked for.
var workloads = map[string]workload{
	"sequential":       sequential(1<<20, 0),
	"small":            sequential(512, 32<<20),
	"random 4K":        random(4<<10, 100_000, 1),
	"random 4K x32":    random(4<<10, 200_000, 32),
	"random 128K":      random(128<<10, 10_000, 1),
	"random 128K x32":  random(128<<10, 20_000, 32),
	"mapped":           mapped,
	"open":             openClose,
	"list":             list,
	"list with stat":   listWithStat,
	"stat":             stats(1),
	"stat x8":          stats(8),
	"stat again":       statAgain,
	"stat all":         statFacts,
	"stat of no name":  statMissing,
	"drop, list":       dropped(list),
	"drop, sequential": dropped(sequential(1<<20, 0)),
	"drop, 4K":         dropped(random(4<<10, 10_000, 1)),
	"drop, 128K":       dropped(random(128<<10, 1_500, 1)),
}

// measureHere runs a workload in this process and prints its figure.
func measureHere(name, path string) error {
	w := workloads[name]
	if w == nil {
		return fmt.Errorf("no workload %q", name)
	}
	v, err := w(path)
	if err == nil {
		fmt.Println(v)
	}
	return err
}

// measure runs a workload in a child process, with the words of as before it.
func (b *bench) measure(ctx context.Context, as []string, name, path string) (float64, error) {
	args := append(append([]string{}, as...), b.exe("bench"), "-measure", name, path)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return 0, fmt.Errorf("%s of %s: %v: %s", name, path, err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// dropped first takes away what the kernel keeps of path itself, pages or
// directory entries. What lies behind a mount is another file: its pages stay.
func dropped(w workload) workload {
	return func(path string) (float64, error) {
		if err := dropPages(path); err != nil {
			return 0, err
		}
		return w(path)
	}
}

func dropPages(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func since(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1000 }
