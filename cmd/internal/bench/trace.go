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

	"github.com/sylabs/sif/v2/pkg/sif"
)

const (
	// greetImage has a small file system in which /bin/true can run.
	greetImage = "catalog/inspect/testdata/greet-signed.sif"
	// headBytes is what Apptainer reads of a file, twice, before it has it mounted.
	headBytes = 112 << 10
)

// trace does what Apptainer does for "exec IMAGE true", without Apptainer: the
// head of the file twice, squashfuse on its partition, chroot and run.
func trace(ctx context.Context, b *bench) {
	img, offset := b.bigContainer(ctx, 500<<20)
	r := &rig{b, b.newRegistry(), img}
	defer r.reg.Close()
	r.reg.add(img)
	b.note("An image of %d MB, of which /bin/true is run: its head is read twice, squashfuse mounts its partition, chroot runs the program. "+
		"Timed from before anything was asked of the registry until the program has ended; %d MB/s a connection.", img.size/1e6, int(perConnection/1e6))
	peers := []struct {
		peer
		squashfuse string
	}{
		{peer{subject: sregfs}, "squashfuse_ll"},
		{peer{subject: pageCache, flags: []string{"--passthrough=off"}}, "squashfuse_ll"},
		{peer{subject: "sregfs, old squashfuse"}, "squashfuse"},
		{peer{subject: rclone}, "squashfuse_ll"},
	}
	links := []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond}
	for range b.Runs {
		for i, rtt := range links {
			r.reg.link.set(network{rtt, perConnection, 0})
			for j, p := range peers {
				if i == 0 || j == 0 {
					r.with(ctx, p.peer, func(d *daemon) {
						words := []string{p.squashfuse, "-o", fmt.Sprintf("offset=%d", offset), d.file(img)}
						r.exec(ctx, fmt.Sprintf("%d ms", rtt.Milliseconds()), p.subject, words)
					})
				}
			}
		}
	}
	for _, rtt := range links {
		at := fmt.Sprintf("%d ms", rtt.Milliseconds())
		b.limit(at+mountedAfter, sregfs, 2000)
		b.limit(at+fetched, sregfs, 8)
	}
	for _, s := range []subject{sregfs, pageCache} {
		b.limit("50 ms"+ranAfter, s, 1500)
		b.limit("50 ms"+fetched, s, 8)
	}
}

const mountedAfter, ranAfter, fetched = ": mounted by squashfuse after", ": the program has run after", ": fetched"

// exec mounts the file system that the last word names by the command, runs
// /bin/true in it, and adds what that took and how much the registry had sent by
// then.
func (r *rig) exec(ctx context.Context, at string, s subject, mount []string) {
	root := r.b.temp("root-")
	defer func() { check(os.Remove(root)) }()
	r.reg.forget()
	start := time.Now()
	readHead(mount[len(mount)-1])
	timed(ctx, append(mount, root)...)
	defer func() { check(exec.Command("fusermount3", "-u", root).Run()) }()
	mounted := time.Since(start)
	timed(ctx, "chroot", root, "/bin/true")
	took, sent := time.Since(start), r.reg.sent()
	r.explain(at+ranAfter, s, start)
	r.b.add(at+mountedAfter, s, "ms", ms(mounted))
	r.b.add(at+ranAfter, s, "ms", ms(took))
	r.b.add(at+fetched, s, "MB", float64(sent)/1e6)
}

func readHead(file string) {
	f := must(os.Open(file))
	defer f.Close()
	for range 2 {
		must(f.ReadAt(make([]byte, headBytes), 0))
	}
}

// bigContainer makes a SIF of about size bytes out of the small one: its file
// system, and files in /opt that do not compress. It returns where the file
// system begins, too.
func (b *bench) bigContainer(ctx context.Context, size int64) (*image, int64) {
	dir := b.temp("container-")
	root, squashed, file := filepath.Join(dir, "root"), filepath.Join(dir, "squashfs"), filepath.Join(dir, "big.sif")
	small := must(sif.LoadContainerFromPath(greetImage, sif.OptLoadWithFlag(os.O_RDONLY)))
	defer func() { _ = small.UnloadContainer() }()
	timed(ctx, "unsquashfs", "-o", fmt.Sprint(partition(small)), "-d", root, greetImage)
	for i := int64(0); i<<24 < size; i++ {
		writeImage(filepath.Join(root, "opt", fmt.Sprintf("data%02d.bin", i)), min(size-i<<24, 1<<24), byte(2+i))
	}
	timed(ctx, "mksquashfs", root, squashed, "-noappend", "-all-root", "-no-progress", "-quiet", "-action", "uncompressed@name(*.bin)")
	f := must(os.Open(squashed))
	defer f.Close()
	part := must(sif.NewDescriptorInput(sif.DataPartition, f, sif.OptPartitionMetadata(sif.FsSquash, sif.PartPrimSys, "amd64")))
	big := must(sif.CreateContainerAtPath(file, sif.OptCreateWithDescriptors(part)))
	offset := partition(big)
	check(big.UnloadContainer())
	check(os.RemoveAll(root))
	check(os.Remove(squashed))
	return newImage("bench/container", "1", file), offset
}

// partition returns where the file system of a SIF begins in it.
func partition(img *sif.FileImage) int64 {
	return must(img.GetDescriptor(sif.WithPartitionType(sif.PartPrimSys))).Offset()
}
