// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// A machine is where and with what the figures were taken.
type machine struct {
	Date, CPU, Kernel, System, Disk string
	CPUs                            int
	MemoryGiB                       int
	Programs                        []string // "rclone v1.60.1-DEV" …
}

func thisMachine(ctx context.Context, sregfs string) machine {
	first := func(args ...string) string {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
		if err != nil {
			return args[0] + ": not there"
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return strings.TrimSpace(line)
	}
	curl := strings.Fields(first("curl", "--version"))
	return machine{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPUs: runtime.NumCPU(),
		CPU: value("/proc/cpuinfo", "model name"), Kernel: first("uname", "-sr"),
		System:    strings.Trim(value("/etc/os-release", "PRETTY_NAME"), `"`),
		Disk:      first("findmnt", "-no", "FSTYPE", "-T", os.TempDir()),
		MemoryGiB: gib(value("/proc/meminfo", "MemTotal")),
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
