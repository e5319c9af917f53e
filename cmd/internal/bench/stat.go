// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const statNames = 10_000

// stat measures asking for attributes: of names that the kernel has not seen
// yet, which sregfs answers from its catalogue, and of those it has.
func stat(ctx context.Context, b *bench) error {
	names := filepath.Join(b.dir, "names")
	if err := writeNames(names, statNames); err != nil {
		return err
	}
	nativeDir, err := b.temp("stat-")
	if err != nil {
		return err
	}
	// As deep as in the mount.
	nativeDir = filepath.Join(nativeDir, "mnt", "big", "ten")
	if err := os.MkdirAll(nativeDir, 0o755); err != nil {
		return err
	}
	k, err := newKnown(ctx, b, collection{"ten", 1, statNames, true})
	if err != nil {
		return err
	}
	defer k.stop()
	local, err := b.newHome()
	if err != nil {
		return err
	}
	if err := errors.Join(writeStore(local.storage, names+".local"), writeEmpty(nativeDir, names)); err != nil {
		return err
	}
	var failed error
	for range b.runs {
		failed = errors.Join(failed,
			b.statOf(ctx, native, nativeDir, names, "stat again"),
			b.statMount(ctx, k.home, "sregfs", "big/ten", names),
			b.statMount(ctx, local, "sregfs, local", "local/bench", names+".local"))
	}
	for _, subject := range []string{"sregfs", "sregfs, local"} {
		b.aim("known to the kernel", subject, native, 0.8)
		b.limit("new to the kernel, one thread", subject, 25_000)
		b.limit("no such name, one thread", subject, 25_000)
	}
	return failed
}

// statWorkloads say what is asked in a mount; a fresh one for each.
var statWorkloads = []struct{ name, workload string }{
	{"new to the kernel, one thread", "stat"},
	{"new to the kernel, 8 threads", "stat x8"},
	{"known to the kernel", "stat again"},
	{"no such name, one thread", "stat of no name"},
}

func (b *bench) statMount(ctx context.Context, h *home, subject, dir, names string) error {
	for _, w := range statWorkloads {
		d, err := h.mount(ctx, subject, "--list-ttl=24h")
		if err != nil {
			return err
		}
		// The daemon's first answer is not what is measured, nor, where the
		// store is a directory, reading it for the first time.
		_, err = eachName(d.path(dir), func([]byte) error { return nil })
		if err == nil {
			err = b.statAs(ctx, subject, w.name, w.workload, d.path(dir)+"\n"+names)
		}
		d.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) statOf(ctx context.Context, subject, dir, names, workload string) error {
	return b.statAs(ctx, subject, "known to the kernel", workload, dir+"\n"+names)
}

func (b *bench) statAs(ctx context.Context, subject, name, workload, path string) error {
	v, err := b.measure(ctx, nil, workload, path)
	if err != nil {
		return err
	}
	b.add(result{name: name, subject: subject, unit: "files/s", runs: []float64{v}})
	return nil
}

// writeStore writes a small image into a store of local for each name that it
// writes into the file names.
func writeStore(store, names string) error {
	var list strings.Builder
	for i := range statNames {
		image := fmt.Sprintf("tool%05d", i)
		dir := filepath.Join(store, "bench", image)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		// Small, because the store is to know the digest of each.
		if err := os.WriteFile(filepath.Join(dir, "latest.sif"), []byte(image), 0o644); err != nil {
			return err
		}
		list.WriteString(image + ":latest.sif\n")
	}
	return os.WriteFile(names, []byte(list.String()), 0o644)
}

// writeEmpty writes an empty file of each name.
func writeEmpty(dir, names string) error {
	text, err := os.ReadFile(names)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(text)) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
