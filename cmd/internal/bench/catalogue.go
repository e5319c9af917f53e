// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// catalogue measures the commands that a person waits for, with 100,000 images
// known on one remote.
func catalogue(ctx context.Context, b *bench) error {
	repositories := make(map[string]int)
	for i := range 10 {
		repositories[fmt.Sprintf("team%02d/tool", i)] = 10_000
	}
	server := listings(repositories)
	defer server.Close()
	state := filepath.Join(b.dir, "big")
	dir := state + ".mnt"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(state+".toml", nil, 0o600); err != nil {
		return err
	}
	env := append(os.Environ(), "SREGFS_HOME="+state, "SREGFS_CACHE_DIR="+state+".cache", "SREGISTRY_STORAGE="+state+".images",
		"SREGFS_CONFIG="+state+".toml", "SREGFS_LIST_TTL=1h")
	sh := func(line string) error {
		cmd := exec.CommandContext(ctx, "sh", "-c", line)
		cmd.Env = append(env, "PATH="+b.bin+":"+os.Getenv("PATH"), "MNT="+dir, "URL="+server.URL)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %v\n%s", line, err, out)
		}
		return nil
	}
	const mount, unmount = `sregfs --remote big=oci,url=$URL $MNT`, `fusermount3 -u $MNT && sleep 0.5`
	if err := sh(mount + ` && ls -R $MNT/big > /dev/null && sreg add --quiet catalog/inspect/testdata/greet-signed.sif local://demo/greet:1`); err != nil {
		return err
	}
	for _, m := range []struct{ name, before, line string }{
		{"start a mount", unmount, mount},
		{"ls of 10,000 tags, first time after a start", unmount + " && " + mount, "ls $MNT/big/team03 > /dev/null"},
		{"ls of 10,000 tags, again", "", "ls $MNT/big/team03 > /dev/null"},
		{"sreg images", "", "sreg images > /dev/null"},
		{"sreg images team03/tool:tag00000*", "", "sreg images 'team03/tool:tag00000*' > /dev/null"},
		{"sreg search tag0004242", "", "sreg search tag0004242 > /dev/null"},
		{"sreg get of a known image", "", "sreg get demo/greet:1 > /dev/null"},
		{"true (what starting a shell costs)", "", "true"},
	} {
		for range b.runs {
			if m.before != "" {
				if err := sh(m.before); err != nil {
					return err
				}
			}
			start := time.Now()
			if err := sh(m.line); err != nil {
				return err
			}
			took := float64(time.Since(start).Microseconds()) / 1000
			b.add(result{name: m.name, subject: "sregfs", unit: "ms", lower: true, runs: []float64{took}})
		}
	}
	return sh(unmount)
}
