// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	manyImages   = 20
	memoryImages = 16
	// manyLink is what all images come over together, in bytes a second, so that
	// they compete.
	manyLink = 200e6
	manyRTT  = 20 * time.Millisecond
)

// coldMany reads many cold images at the same time: whether each gets its share,
// whether the link is used, and what memory that takes.
func coldMany(ctx context.Context, b *bench) (err error) {
	reg, err := openRegistry()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.close()) }()
	size := int64(48 << 20)
	if b.quick {
		size /= 8
	}
	var images []*image
	for i := range manyImages {
		img, err := randomImage(b.dir, "bench/many", fmt.Sprint(i), size, byte(100+i))
		if err != nil {
			return err
		}
		reg.add(img)
		images = append(images, img)
	}
	b.note("%d images of %d MiB at %v over a link of %d MB/s that all connections share. Fairness is Jain's index of what each image had "+
		"when the first was whole: 1 is equal shares, %.2f is all for one.", manyImages, size>>20, manyRTT, int(manyLink/1e6), 1.0/manyImages)
	r := &coldRig{b: b, reg: reg}
	for range b.runs {
		reg.link.set(manyRTT, 0, manyLink)
		if err := r.fairness(ctx, images); err != nil {
			return err
		}
		reg.link.set(manyRTT, perConnection, 0)
		if err := r.memory(ctx, images[:memoryImages]); err != nil {
			return err
		}
	}
	b.limit(fairName, "sregfs", 0.8)
	b.limit(linkName, "sregfs", 0.9)
	b.limit(memoryName, "sregfs", 300)
	return nil
}

const (
	fairName   = "fairness among 20 images"
	linkName   = "share of the link used"
	memoryName = "memory of the daemon while 16 are read"
)

func (r *coldRig) fairness(ctx context.Context, images []*image) error {
	return r.withAll(ctx, images, func(_ *daemon, files []string) error {
		read := make([]int64, len(files))
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		r.reg.forget()
		start := time.Now()
		group, ctx := errgroup.WithContext(ctx)
		for i, file := range files {
			group.Go(func() (err error) {
				read[i], err = readUntil(ctx, file)
				if err == nil {
					cancel(errWhole) // the race is over
				}
				return err
			})
		}
		err := group.Wait()
		used := float64(r.reg.traffic().bytes) / time.Since(start).Seconds() / manyLink
		if err != nil && !errors.Is(context.Cause(ctx), errWhole) {
			return err
		}
		r.b.add(result{name: fairName, subject: "sregfs", unit: "of 1", runs: []float64{jain(read)}})
		r.b.add(result{name: linkName, subject: "sregfs", unit: "of 1", runs: []float64{used}})
		return nil
	})
}

var errWhole = errors.New("an image is whole")

func jain(x []int64) float64 {
	var sum, squares float64
	for _, v := range x {
		sum += float64(v)
		squares += float64(v) * float64(v)
	}
	if squares == 0 {
		return 0
	}
	return sum * sum / float64(len(x)) / squares
}

// readUntil reads a file in order to its end, or until ctx ends, and returns how
// much that was.
func readUntil(ctx context.Context, file string) (int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	var total int64
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		total += int64(n)
		if n == 0 || err != nil {
			return total, nil //nolint:nilerr // the end of the file; what else it may be shows in the total
		}
	}
	return total, ctx.Err()
}

func (r *coldRig) memory(ctx context.Context, images []*image) error {
	return r.withAll(ctx, images, func(d *daemon, files []string) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, file := range files {
			group.Go(func() error {
				_, err := readWhole(ctx, nil, file)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		peak, err := d.peakRSS()
		if err == nil {
			r.b.add(result{name: memoryName, subject: "sregfs", unit: "MB", lower: true, runs: []float64{float64(peak) / 1e6}})
		}
		return err
	})
}

// withAll runs do on a new mount whose listing knows the images.
func (r *coldRig) withAll(ctx context.Context, images []*image, do func(d *daemon, files []string) error) (err error) {
	h, err := r.b.newHome(r.remote())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	d, err := h.mount(ctx, "sregfs")
	if err != nil {
		return err
	}
	defer d.stop()
	var files []string
	for _, img := range images {
		file := d.path(filepath.FromSlash(img.inTree()))
		if _, err := os.Stat(file); err != nil {
			return err
		}
		files = append(files, file)
	}
	return do(d, files)
}
