// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// pieceSize is what a parallel curl asks for at once.
const pieceSize = 8 << 20

// curl downloads the image to a file, as a person would.
func (r *rig) curl(ctx context.Context) time.Duration {
	dir := r.b.temp("curl-")
	defer remove(dir)
	return timed(ctx, "curl", "-sSf", "-o", filepath.Join(dir, "whole"), r.reg.blobURL(r.img))
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
// is not counted; if they are to be checked, computing the digest from them is.
func (p parallel) download(ctx context.Context, r *rig, checked bool) time.Duration {
	return p.fetch(ctx, r.b, r.reg.blobURL(r.img), r.img, checked)
}

// fetch is download from an address.
func (p parallel) fetch(ctx context.Context, b *bench, url string, img *image, checked bool) time.Duration {
	dir := b.temp("curl-")
	defer remove(dir)
	pieces := int((img.size + pieceSize - 1) / pieceSize)
	commands := make([][]string, min(p.connections, pieces))
	if !p.processes {
		commands = make([][]string, 1)
	}
	for i := range pieces {
		c, begin := &commands[i%len(commands)], int64(i)*pieceSize
		switch {
		case *c != nil:
			*c = append(*c, "--next")
		case p.processes:
			*c = []string{"curl"}
		default:
			*c = []string{"curl", "-Z", "--parallel-immediate", "--no-progress-meter", "--parallel-max", strconv.Itoa(p.connections)}
		}
		*c = append(*c, "-sSf", "-r", fmt.Sprintf("%d-%d", begin, min(begin+pieceSize, img.size)-1),
			"-o", filepath.Join(dir, fmt.Sprintf("%06d", i)), url)
	}
	start := time.Now()
	together(len(commands), func(i int) { timed(ctx, commands[i]...) })
	if checked {
		timed(ctx, "sh", "-c", `test "sha256:$(cat "$1"/* | openssl dgst -sha256 -r)" = "$2 *stdin"`, "sh", dir, string(img.digest))
	}
	return time.Since(start)
}

// curlRange fetches the first n bytes on a new connection and returns how long
// that took from when curl began to look for the server.
func curlRange(ctx context.Context, url string, n int64) time.Duration {
	out := output(ctx, nil, "curl", "-sSf", "-o", os.DevNull, "-w", "%{time_total}", "-r", fmt.Sprintf("0-%d", n-1), url)
	return time.Duration(must(strconv.ParseFloat(out, 64)) * float64(time.Second))
}
