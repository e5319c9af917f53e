// SPDX-License-Identifier: Apache-2.0

// Command bench measures warm reads through a sregfs mount, as ratios against
// the native file and against rclone mount of the same store, in one run on one
// machine, and then the commands with a large catalogue. It is a developer's tool, run by "make bench", and no part of what is
// installed.
//
// Each number is the median of several runs that take turns (native, sregfs,
// rclone, native …), so that a slow minute of the machine hits all alike.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

type config struct {
	bin  string
	size int64
	runs int
	dir  string
}

func main() {
	var c config
	flag.StringVar(&c.bin, "bin", ".build/bin", "directory of the sregfs binary")
	flag.Int64Var(&c.size, "size", 1<<30, "bytes of the image that is read")
	flag.IntVar(&c.runs, "runs", 5, "runs of each measurement")
	flag.Parse()
	if err := run(context.Background(), c); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) (err error) {
	if c.dir, err = os.MkdirTemp("", "sregfs-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.dir)) }()
	store := filepath.Join(c.dir, "store")
	native := filepath.Join(store, "bench", "big", "1.sif")
	if err := writeImage(native, c.size); err != nil {
		return err
	}
	subjects := []subject{{name: "native", path: native}}
	for _, start := range []func(context.Context, config, string) (*mount, error){mountSregfs, mountSregfsNoPassthrough, mountRclone} {
		m, err := start(ctx, c, store)
		if err != nil {
			return err
		}
		defer m.stop()
		subjects = append(subjects, m.subject)
	}
	if err := report(measureAll(subjects, c.runs), subjects); err != nil {
		return err
	}
	fmt.Println()
	return catalogue(ctx, c)
}

// measureAll returns the runs' figures, by workload and subject.
func measureAll(subjects []subject, runs int) map[string]map[string][]float64 {
	all := make(map[string]map[string][]float64)
	for _, w := range workloads {
		all[w.name] = make(map[string][]float64)
		for range runs {
			for _, s := range subjects {
				figure, err := w.measure(s.path)
				if err != nil {
					fmt.Fprintf(os.Stderr, "%s, %s: %v\n", w.name, s.name, err)
					continue
				}
				all[w.name][s.name] = append(all[w.name][s.name], figure)
			}
		}
	}
	return all
}

func report(all map[string]map[string][]float64, subjects []subject) error {
	tw := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "workload\tsubject\tmedian\tlowest\thighest\tof native\tof rclone")
	for _, w := range workloads {
		figures := all[w.name]
		native, rclone := median(figures["native"]), median(figures["rclone"])
		for _, s := range subjects {
			f := figures[s.name]
			if len(f) == 0 {
				fmt.Fprintf(tw, "%s\t%s\tno figure\t\t\t\t\n", w.name, s.name)
				continue
			}
			m := median(f)
			fmt.Fprintf(tw, "%s\t%s\t%.0f %s\t%.0f\t%.0f\t%s\t%s\n", w.name, s.name, m, w.unit, slices.Min(f), slices.Max(f), ratio(m, native), ratio(m, rclone))
		}
	}
	return tw.Flush()
}

func ratio(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", a/b)
}

func median(f []float64) float64 {
	if len(f) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(f))
	return s[len(s)/2]
}
