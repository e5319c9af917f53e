// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// pieceSize is what a parallel curl asks for at once.
const pieceSize = 8 << 20

// timed runs a command and returns how long that took.
func timed(ctx context.Context, name string, args ...string) (time.Duration, error) {
	start := time.Now()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %v\n%s", name, err, out)
	}
	return time.Since(start), err
}

// timedAs is timed for somebody else: the words of as stand before the command.
func timedAs(ctx context.Context, as []string, args ...string) (time.Duration, error) {
	words := slices.Concat(as, args)
	return timed(ctx, words[0], words[1:]...)
}

// curlFile downloads an address to a file, as a person would.
func (b *bench) curlFile(ctx context.Context, url string) (took time.Duration, err error) {
	dir, err := b.temp("curl-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return timed(ctx, "curl", "-sSf", "-o", filepath.Join(dir, "whole"), url)
}

// A parallel is a way to download with several curls at a time: in one process
// ("curl -Z"), or in as many as there are connections.
type parallel struct {
	connections int
	processes   bool
}

func (p parallel) String() string {
	if p.processes {
		return fmt.Sprintf("%d curls", p.connections)
	}
	return fmt.Sprintf("curl -Z with %d connections", p.connections)
}

// parallels are those of which the fastest is compared with.
var parallels = []parallel{{4, false}, {8, false}, {16, false}, {4, true}, {8, true}, {16, true}}

// download fetches ranges of pieceSize into a file each. Putting these together
// is not counted; if a digest is given, computing it from them is.
func (p parallel) download(ctx context.Context, b *bench, url string, size int64, digest string) (took time.Duration, err error) {
	dir, err := b.temp("curl-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	workers := 1
	if p.processes {
		workers = min(p.connections, int((size+pieceSize-1)/pieceSize))
	}
	args := make([][]string, workers)
	for i := int64(0); i*pieceSize < size; i++ {
		w := &args[i%int64(workers)]
		if len(*w) > 0 {
			*w = append(*w, "--next")
		}
		*w = append(*w, "-sSf", "-r", fmt.Sprintf("%d-%d", i*pieceSize, min((i+1)*pieceSize, size)-1),
			"-o", filepath.Join(dir, fmt.Sprintf("%06d", i)), url)
	}
	start := time.Now()
	group, groupCtx := errgroup.WithContext(ctx)
	for _, a := range args {
		if !p.processes {
			a = append([]string{"-Z", "--parallel-immediate", "--no-progress-meter", "--parallel-max", strconv.Itoa(p.connections)}, a...)
		}
		group.Go(func() error {
			_, err := timed(groupCtx, "curl", a...)
			return err
		})
	}
	if err := group.Wait(); err != nil || digest == "" {
		return time.Since(start), err
	}
	_, err = timed(ctx, "sh", "-c", `test "sha256:$(cat "$1"/* | openssl dgst -sha256 -r)" = "$2 *stdin"`, "sh", dir, digest)
	return time.Since(start), err
}

// curlRange fetches some bytes on a new connection and returns how long that
// took from when curl began to look for the server.
func curlRange(ctx context.Context, url string, off, n int64) (time.Duration, error) {
	out, err := exec.CommandContext(ctx, "curl", "-sSf", "-o", os.DevNull, "-w", "%{time_total}", "-r", fmt.Sprintf("%d-%d", off, off+n-1), url).Output()
	if err != nil {
		return 0, fmt.Errorf("curl: %v", err)
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	return time.Duration(seconds * float64(time.Second)), err
}
