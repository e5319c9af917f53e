// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"time"

	"github.com/sylabs/sif/v2/pkg/sif"
)

const (
	// greetImage has a small file system in which /bin/true can run.
	greetImage = "catalog/inspect/testdata/greet-signed.sif"
	// headBytes is what Apptainer reads of a file, twice, before it has it mounted.
	headBytes = 112 << 10
	// maxFetched is the most that may have been fetched when the program has run.
	maxFetched = 8.0 // MB
)

// trace does what Apptainer does for "exec IMAGE true", without Apptainer: the
// head of the file twice, squashfuse on its partition, chroot and run.
func trace(ctx context.Context, b *bench) (err error) {
	img, offset, err := bigContainer(ctx, b, 500<<20)
	if err != nil {
		return err
	}
	reg, err := openRegistry()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reg.close()) }()
	reg.add(img)
	t := &tracer{coldRig: &coldRig{b: b, reg: reg, img: img}, offset: offset}
	b.note("An image of %d MB, of which /bin/true is run: its head is read twice, squashfuse mounts its partition, chroot runs the program. "+
		"Timed from before anything was asked of the registry until the program has ended; %d MB/s a connection.", img.size/1e6, int(perConnection/1e6))
	for range b.runs {
		for _, rtt := range []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond} {
			if err := t.turn(ctx, rtt); err != nil {
				return err
			}
		}
	}
	t.judge()
	return nil
}

// A tracer runs a program of an image in many ways.
type tracer struct {
	*coldRig
	offset int64 // of the file system in the image
}

// turn runs each subject once.
func (t *tracer) turn(ctx context.Context, rtt time.Duration) error {
	t.reg.link.set(rtt, perConnection, 0)
	at := fmt.Sprintf("%d ms", rtt.Milliseconds())
	if err := t.bySregfs(ctx, at, "sregfs", "squashfuse_ll"); err != nil {
		return err
	}
	if rtt > 50*time.Millisecond {
		return nil
	}
	if err := t.bySregfs(ctx, at, "sregfs, page cache", "squashfuse_ll", "--passthrough=off"); err != nil {
		return err
	}
	if err := t.bySregfs(ctx, at, "sregfs, old squashfuse", "squashfuse"); err != nil {
		return err
	}
	return t.byRclone(ctx, at)
}

func (t *tracer) judge() {
	b := t.b
	for _, at := range []string{"50 ms", "100 ms", "200 ms"} {
		b.limit(at+": mounted by squashfuse after", "sregfs", 2000)
		b.limit(at+": fetched", "sregfs", maxFetched)
	}
	for _, subject := range []string{"sregfs", "sregfs, page cache"} {
		b.limit("50 ms: the program has run after", subject, 1500)
		b.limit("50 ms: fetched", subject, maxFetched)
	}
}

func (t *tracer) bySregfs(ctx context.Context, at, subject, squashfuse string, flags ...string) (err error) {
	h, err := t.b.newHome(t.remote())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(h.dir)) }()
	d, err := h.mount(ctx, "sregfs", flags...)
	if err != nil {
		return err
	}
	defer d.stop()
	if err = t.run(ctx, at, subject, squashfuse, d.path(t.img.inTree())); err != nil {
		err = fmt.Errorf("%w\n%s", err, d.logText())
	}
	return err
}

func (t *tracer) byRclone(ctx context.Context, at string) (err error) {
	d, err := t.b.rclone(ctx, ":http:", "--http-url", t.reg.url+"/files/")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(path.Dir(d.dir))) }()
	defer d.stop()
	return t.run(ctx, at, "rclone", "squashfuse_ll", d.path(t.img.inFiles()))
}

// run mounts the file system in file, runs /bin/true in it, and adds what that
// took and how much the registry had sent by then.
func (t *tracer) run(ctx context.Context, at, subject, squashfuse, file string) (err error) {
	root, err := t.b.temp("root-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(root)) }()
	t.reg.forget()
	start := time.Now()
	if err := readHead(file); err != nil {
		return err
	}
	if _, err := timed(ctx, squashfuse, "-o", fmt.Sprintf("offset=%d", t.offset), file, root); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, exec.Command("fusermount3", "-u", root).Run()) }()
	mounted := time.Since(start)
	if _, err := timed(ctx, "chroot", root, "/bin/true"); err != nil {
		return err
	}
	took, sent := time.Since(start), t.reg.traffic()
	name := at + ": the program has run after"
	if t.b.verbose && t.b.median(name, subject) == 0 {
		t.b.logf("%s: %s ran it after %v", at, subject, took)
		t.reg.printTimeline(os.Stderr, start)
	}
	t.b.add(result{name: at + ": mounted by squashfuse after", subject: subject, unit: "ms", lower: true, runs: []float64{milliseconds(mounted)}})
	t.b.add(result{name: name, subject: subject, unit: "ms", lower: true, runs: []float64{milliseconds(took)}})
	t.b.add(result{name: at + ": fetched", subject: subject, unit: "MB", lower: true, runs: []float64{float64(sent.bytes) / 1e6}})
	return nil
}

func readHead(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 2 {
		if _, err := f.ReadAt(make([]byte, headBytes), 0); err != nil {
			return err
		}
	}
	return nil
}

// bigContainer makes a SIF of about size bytes out of the small one: its file
// system, and files in /opt that do not compress.
func bigContainer(ctx context.Context, b *bench, size int64) (_ *image, offset int64, err error) {
	dir, err := b.temp("container-")
	if err != nil {
		return nil, 0, err
	}
	root, squashed, file := filepath.Join(dir, "root"), filepath.Join(dir, "squashfs"), filepath.Join(dir, "big.sif")
	if err := unpack(ctx, root); err != nil {
		return nil, 0, err
	}
	if err := pad(filepath.Join(root, "opt"), size); err != nil {
		return nil, 0, err
	}
	_, err = timed(ctx, "mksquashfs", root, squashed, "-noappend", "-all-root", "-no-progress", "-quiet", "-action", "uncompressed@name(*.bin)")
	if err != nil {
		return nil, 0, err
	}
	if offset, err = wrap(squashed, file); err != nil {
		return nil, 0, err
	}
	if err := errors.Join(os.RemoveAll(root), os.Remove(squashed)); err != nil {
		return nil, 0, err
	}
	img, err := newImage("bench/container", "1", file)
	return img, offset, err
}

// unpack puts the files of the small image into a new directory.
func unpack(ctx context.Context, root string) (err error) {
	small, err := sif.LoadContainerFromPath(greetImage, sif.OptLoadWithFlag(os.O_RDONLY))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, small.UnloadContainer()) }()
	part, err := small.GetDescriptor(sif.WithPartitionType(sif.PartPrimSys))
	if err != nil {
		return err
	}
	_, err = timed(ctx, "unsquashfs", "-o", fmt.Sprint(part.Offset()), "-d", root, greetImage)
	return err
}

// pad writes files of 16 MiB with size bytes in all, which do not compress.
func pad(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	random := rand.NewChaCha8([32]byte{2})
	for i := 0; size > 0; i++ {
		var file bytes.Buffer
		n, _ := io.CopyN(&file, random, min(size, 16<<20)) // neither fails
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("data%02d.bin", i)), file.Bytes(), 0o644); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

// wrap makes a SIF of a file system and returns where that begins in it.
func wrap(squashed, file string) (offset int64, err error) {
	f, err := os.Open(squashed)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	part, err := sif.NewDescriptorInput(sif.DataPartition, f, sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "amd64"))
	if err != nil {
		return 0, err
	}
	img, err := sif.CreateContainerAtPath(file, sif.OptCreateWithDescriptors(part))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, img.UnloadContainer()) }()
	made, err := img.GetDescriptor(sif.WithPartitionType(sif.PartPrimSys))
	if err != nil {
		return 0, err
	}
	return made.Offset(), nil
}
