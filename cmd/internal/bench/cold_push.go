// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"
)

const (
	pushRTT  = 20 * time.Millisecond
	pushRate = 100e6 // bytes a second of each connection, to the registry
)

// coldPush copies an image into the mount, which returns when it is published,
// against curl that uploads the blob alone.
func coldPush(ctx context.Context, b *bench) (err error) {
	size := int64(512 << 20)
	if b.quick {
		size /= 8
	}
	img, _, err := bigContainer(ctx, b, size)
	if err != nil {
		return err
	}
	reg, err := openRegistry()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.close()) }()
	r := &coldRig{b: b, reg: reg, img: img}
	reg.link.set(pushRTT, 0, 0)
	reg.link.up.Store(pushRate)
	name := fmt.Sprintf("%d MB at %v and %d MB/s", img.size/1e6, pushRTT, int(pushRate/1e6))
	b.note("cp returns when the image is checked, hashed, durable here and published there; curl sends a blob whose digest it was told.")
	for range b.runs {
		for _, t := range []try{{"sregfs", r.pushBySregfs}, {"curl", r.pushByCurl}} {
			if err := r.measure(ctx, name, t); err != nil {
				return err
			}
		}
	}
	b.aim(name, "sregfs", "curl", 0.9)
	return nil
}

func (r *coldRig) pushBySregfs(ctx context.Context) (took time.Duration, err error) {
	h, err := r.b.newHome(r.remote())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	d, err := h.mount(ctx, "sregfs")
	if err != nil {
		return 0, err
	}
	defer d.stop()
	dir := d.path("lab/bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	r.reg.forget()
	start := time.Now()
	took, err = timed(ctx, "cp", r.img.path, path.Join(dir, "pushed:1.sif"))
	if r.b.verbose {
		r.b.logf("push: cp returned after %v", took)
		r.reg.printTimeline(os.Stderr, start)
	}
	if err == nil && !r.reg.pushed("bench/pushed", "1") {
		err = errors.New("cp returned, but the registry has no such tag")
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, d.logText())
	}
	return took, err
}

// pushByCurl uploads as the distribution specification has it for one piece.
func (r *coldRig) pushByCurl(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	location, err := exec.CommandContext(ctx, "curl", "-sSf", "-X", "POST", "-o", os.DevNull, "-w", "%header{location}",
		r.reg.url+"/v2/bench/pushed/blobs/uploads/").Output()
	if err != nil {
		return 0, err
	}
	upload := r.reg.url + strings.TrimSpace(string(location))
	if _, err := timed(ctx, "curl", "-sSf", "-X", "PATCH", "-o", os.DevNull, "-T", r.img.path, upload,
		"--next", "-sSf", "-X", "PUT", "-o", os.DevNull, upload+"?digest="+r.img.digest); err != nil {
		return 0, err
	}
	took := time.Since(start)
	r.reg.pushed("bench/pushed", "1")
	return took, nil
}
