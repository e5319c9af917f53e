// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"time"

	"golang.org/x/sync/errgroup"
)

// openers is how many open one cold image at the same time.
const openers = 64

// crowd counts what a registry sends when many open the same image, which has
// two names: half of them read all of it, the other half here and there.
func crowd(ctx context.Context, b *bench) (err error) {
	r, err := newColdRig(b, 128<<20)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.reg.close()) }()
	twin, err := newImage(r.img.repo, "twin", r.img.path)
	if err != nil {
		return err
	}
	r.reg.add(twin)
	name := fmt.Sprintf("%d openers of %d MiB", openers, r.img.size>>20)
	b.note("Half of the openers read all in sequence, half read 4 KiB at 200 random places; half use the one tag of the image, half another one. " +
		"Every byte was compared. Counted at the registry; rclone has no notion of two names for the same bytes.")
	for range b.runs {
		for _, l := range []coldLink{{0, 0}, {20 * time.Millisecond, perConnection}} {
			r.reg.link.set(l.rtt, l.rate, 0)
			at := name + ", " + l.String()
			if err := r.crowdSregfs(ctx, at, twin); err != nil {
				return err
			}
			b.limit(at, "sregfs", 1.02)
		}
		r.reg.link.set(0, 0, 0)
		if err := r.crowdRclone(ctx, name+", "+coldLink{}.String(), twin); err != nil {
			return err
		}
	}
	return nil
}

func (r *coldRig) crowdSregfs(ctx context.Context, name string, twin *image) (err error) {
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
	return r.crowdOf(ctx, name, "sregfs", d.path(r.img.inTree()), d.path(twin.inTree()))
}

func (r *coldRig) crowdRclone(ctx context.Context, name string, twin *image) (err error) {
	d, err := r.b.rclone(ctx, ":http:", "--http-url", r.reg.url+"/files/")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(path.Dir(d.dir))) }()
	defer d.stop()
	return r.crowdOf(ctx, name, "rclone", d.path(r.img.inFiles()), d.path(twin.inFiles()))
}

func (r *coldRig) crowdOf(ctx context.Context, name, subject string, files ...string) error {
	want, err := os.Open(r.img.path)
	if err != nil {
		return err
	}
	defer want.Close()
	r.reg.forget()
	group, ctx := errgroup.WithContext(ctx)
	for i := range openers {
		group.Go(func() error {
			f, err := os.Open(files[i/2%len(files)])
			if err != nil {
				return err
			}
			defer f.Close()
			if i%2 == 0 {
				return sameAll(ctx, f, want)
			}
			return sameSome(ctx, f, want, r.img.size, uint64(i))
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("%s: %s: %w", name, subject, err)
	}
	sent := float64(r.reg.traffic().bytes) / float64(r.img.size)
	r.b.add(result{name: name, subject: subject, unit: "bytes/size", lower: true, runs: []float64{sent}})
	return nil
}

var errDiffers = errors.New("wrong bytes")

// sameAll reads a file in order and compares it.
func sameAll(ctx context.Context, file, want io.ReaderAt) error {
	const piece = 1 << 20
	a, b := make([]byte, piece), make([]byte, piece)
	for off := int64(0); ctx.Err() == nil; off += piece {
		n, err := file.ReadAt(a, off)
		m, _ := want.ReadAt(b, off) // has all that the other may have
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return err
		case n != m || string(a[:n]) != string(b[:m]):
			return fmt.Errorf("%w at %d", errDiffers, off)
		case err != nil:
			return nil
		}
	}
	return ctx.Err()
}

// sameSome compares 4 KiB at each of 200 places.
func sameSome(ctx context.Context, file, want io.ReaderAt, size int64, seed uint64) error {
	const piece = 4 << 10
	rnd := rand.New(rand.NewPCG(seed, 0))
	a, b := make([]byte, piece), make([]byte, piece)
	for range 200 {
		off := rnd.Int64N(size - piece)
		_, err := file.ReadAt(a, off)
		_, wantErr := want.ReadAt(b, off)
		switch {
		case errors.Join(err, wantErr, ctx.Err()) != nil:
			return errors.Join(err, wantErr, ctx.Err())
		case string(a) != string(b):
			return fmt.Errorf("%w at %d", errDiffers, off)
		}
	}
	return nil
}
