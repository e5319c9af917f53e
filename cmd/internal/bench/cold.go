// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"fmt"
	"path"
	"time"
)

// coldSuites measure what comes over a network: the registry and the link to it
// are in this process, and the same for all subjects.
func coldSuites() []suite {
	return []suite{
		{"cold", "Cold reads of a whole image", coldWhole},
		{"first", "Open and the first 4 KiB of a cold image", coldFirst},
		{"trace", "Running a program of a cold image", trace},
		{"fill", "Waiting for a piece while the rest comes in", coldFill},
		{"crowd", "Many readers of one cold image", crowd},
		{"many", "Many cold images at the same time", coldMany},
		{"push", "Pushing an image", coldPush},
	}
}

// perConnection is what one connection brings where it is limited: what a
// registry's storage gives one client, more or less.
const perConnection = 50e6

// coldLinks are those that whole images are read over.
var coldLinks = []coldLink{{0, 0}, {0, perConnection}, {20 * time.Millisecond, perConnection}, {100 * time.Millisecond, perConnection}, {200 * time.Millisecond, perConnection}}

// A coldLink is a round-trip time and the rate of each connection, 0 for no limit.
type coldLink struct {
	rtt  time.Duration
	rate int64
}

func (l coldLink) String() string {
	if l.rate == 0 {
		return fmt.Sprintf("%d ms, no limit", l.rtt.Milliseconds())
	}
	return fmt.Sprintf("%d ms, %d MB/s a connection", l.rtt.Milliseconds(), l.rate/1e6)
}

// A coldRig is a registry and an image in it that nobody has yet.
type coldRig struct {
	b   *bench
	reg *registry
	img *image
}

// newColdRig makes one with a random image. The caller closes the registry.
func newColdRig(b *bench, size int64) (*coldRig, error) {
	if b.quick {
		size /= 8
	}
	img, err := randomImage(b.dir, "bench/cold", "1", size, 1)
	if err != nil {
		return nil, err
	}
	reg, err := openRegistry()
	if err != nil {
		return nil, err
	}
	reg.add(img)
	return &coldRig{b: b, reg: reg, img: img}, nil
}

func (r *coldRig) blobURL() string { return r.reg.url + "/v2/" + r.img.repo + "/blobs/" + r.img.digest }

// remote is the registry as a remote of sregfs.
func (r *coldRig) remote() string { return "lab=oci,url=" + r.reg.url }

// inTree is where the image is in a mount.
func (m *image) inTree() string { return path.Join("lab", m.repo+":"+m.tag+".sif") }

// inFiles is where it is below /files/ of the registry.
func (m *image) inFiles() string { return path.Join(m.repo, m.tag+".sif") }

// A try does something once, with nothing left over from the time before, and
// returns how long that took.
type try struct {
	subject string
	run     func(ctx context.Context) (time.Duration, error)
}
