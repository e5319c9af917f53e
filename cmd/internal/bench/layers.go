// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sylabs/sif/v2/pkg/sif"
	"golang.org/x/sys/unix"
)

// A container is a container image on a registry.
type container struct {
	*rig
	layers     []*image
	layout     string // the same as an OCI layout on the disk
	compressed int64  // bytes of all layers
	tars       int64
	offset     int64 // of the file system in the file
}

// layerRoots are what the layers are made of: directories of this machine. Those that are not
// here, or are larger than maxRoot, are left out.
var layerRoots = []string{"usr/bin", "usr/local/go/src", "usr/lib/python3", "usr/lib/gcc", "usr/local/go/pkg", "usr/share", "usr/lib/x86_64-linux-gnu", "usr/lib/git-core"}

const maxRoot = 800 << 20

// roots returns those of layerRoots that can be used.
func (b *bench) roots(ctx context.Context) (all []string) {
	for _, root := range layerRoots {
		size, err := strconv.ParseInt(strings.TrimSpace(b.sh(ctx, `du -sxb "/$1" 2>/dev/null | cut -f1 || true`, root)), 10, 64)
		if err == nil && size < maxRoot {
			all = append(all, root)
		}
	}
	return all
}

// newContainer makes an image of some hundred MB: a small root file system, and what of
// layerRoots makes size bytes, compressed. The caller closes the registry.
func (b *bench) newContainer(ctx context.Context, size int64) *container {
	dir := b.temp("layers-")
	c := &container{rig: &rig{b: b, reg: b.newRegistry()}, layout: filepath.Join(dir, "layout")}
	check(os.MkdirAll(c.blobs(), 0o755))
	var m ocispec.Manifest
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}}
	m.SchemaVersion, m.MediaType = 2, ocispec.MediaTypeImageManifest
	root := c.smallRoot(ctx, dir)
	words := [][]string{{"-C", root, "."}}
	for _, root := range b.roots(ctx) {
		words = append(words, []string{"-C", "/", root})
	}
	for i := 0; i < len(words) && c.compressed < size; i++ {
		layer, tar := c.addLayer(ctx, dir, words[i])
		m.Layers, config.RootFS.DiffIDs = append(m.Layers, layer), append(config.RootFS.DiffIDs, tar)
	}
	remove(root)
	config.RootFS.Type = "layers"
	m.Config = c.put(must(json.Marshal(config)), ocispec.MediaTypeImageConfig)
	text := must(json.Marshal(m))
	d := c.put(text, m.MediaType)
	d.Annotations = map[string]string{ocispec.AnnotationRefName: "1"}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}}
	index.SchemaVersion = 2
	check(os.WriteFile(filepath.Join(c.layout, "index.json"), must(json.Marshal(index)), 0o644))
	check(os.WriteFile(filepath.Join(c.layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	c.img = &image{repo: "bench/container", tag: "1", manifest: text}
	c.reg.images, c.reg.listed[c.img.repo] = append(c.reg.images, c.img), 0
	return c
}

// smallRoot unpacks a root file system in which a program runs.
func (c *container) smallRoot(ctx context.Context, dir string) string {
	small, root := must(sif.LoadContainerFromPath(greetImage, sif.OptLoadWithFlag(os.O_RDONLY))), filepath.Join(dir, "root")
	timed(ctx, "unsquashfs", "-o", fmt.Sprint(partition(small)), "-d", root, greetImage)
	check(small.UnloadContainer())
	return root
}

func (c *container) blobs() string { return filepath.Join(c.layout, "blobs", "sha256") }

// put adds a text as a blob.
func (c *container) put(text []byte, mediaType string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	file := filepath.Join(c.blobs(), d.Digest.Encoded())
	check(os.WriteFile(file, text, 0o644))
	c.reg.images = append(c.reg.images, &image{path: file, size: d.Size, digest: d.Digest})
	return d
}

// addLayer adds what tar packs with these words as a layer, and returns the digest of the tar, too.
func (c *container) addLayer(ctx context.Context, dir string, words []string) (ocispec.Descriptor, digest.Digest) {
	tar := filepath.Join(dir, "tar")
	timed(ctx, append([]string{"tar", "--sort=name", "-cf", tar}, words...)...)
	f := must(os.Open(tar))
	sum := must(digest.FromReader(f))
	c.tars += must(f.Stat()).Size()
	check(f.Close())
	timed(ctx, "gzip", "-f", "-6", tar)
	img := newImage("", "", tar+".gz")
	img.path = filepath.Join(c.blobs(), img.digest.Encoded())
	check(os.Rename(tar+".gz", img.path))
	c.reg.images, c.layers, c.compressed = append(c.reg.images, img), append(c.layers, img), c.compressed+img.size
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: img.digest, Size: img.size}, sum
}

// What the suite of container images measures.
const (
	ran     = "a program has run after"
	got     = "fetched until a program has run"
	cpu     = "CPU"
	onDisk  = "disk at the peak"
	inUse   = "memory at the peak"
	finding = "find in a container"
	reading = "reading all files in a container"

	converted  subject = "umoci + mksquashfs"
	inflated   subject = "download and inflate"
	alone      subject = "inflate and SHA-256 alone"
	again      subject = "sregfs, index kept"
	mksquashfs subject = "squashfs of mksquashfs"
)

// containers measures a Docker image whose file is made of its layers.
func containers(ctx context.Context, b *bench) {
	c := b.newContainer(ctx, b.scaled(400<<20, 8))
	defer c.reg.Close()
	c.findPartition(ctx)
	far := network{20 * time.Millisecond, perConnection, 0}
	c.reg.link.set(far)
	b.note("An image of %d gzip layers, %d MB compressed, %d MB of tar; %v. Run is: the head is read twice, squashfuse_ll mounts the partition, chroot runs /bin/true. "+
		"umoci unpacks the layers from this disk, and mksquashfs packs them again, as Apptainer does after it has downloaded them.", len(c.layers), c.compressed/1e6, c.tars/1e6, far)
	took, squashed := c.convert(ctx)
	b.add(ran, converted, "ms", ms(took))
	for range b.Runs {
		b.add(ran, inflated, "ms", ms(c.inflate(ctx)))
		b.add(cpu, alone, "s", b.measure(ctx, nil, "inflate", c.list()))
		c.run(ctx, squashed)
	}
	b.aim(ran, sregfs, inflated, 1.3)
	if r := b.find(b.suite, ran, converted); r != nil {
		met := r.median() >= 20*b.median(ran, sregfs)
		r.Target, r.Met = "≥ 20 × sregfs", &met
	}
	b.aim(cpu, sregfs, alone, 1.3)
	b.aim(finding, sregfs, mksquashfs, 1)
	b.aim(reading, sregfs, mksquashfs, 1)
	b.limit(ran, again, 600)
	b.limit(got, again, 12)
	b.limit(onDisk, sregfs, 1.05)
	b.limit(inUse, sregfs, 200)
	c.crowd(ctx)
}

// run measures one mount with an empty cache, and one with nothing but what is known of the
// layers.
func (c *container) run(ctx context.Context, squashed string) {
	b := c.b
	h := b.newHome(false, c.reg.remote())
	defer remove(h.dir)
	d := h.mount(ctx)
	defer func() { d.stop() }() // also of the second one
	stop := c.watchDisk(h)
	took, sent := c.start(ctx, d)
	b.add(ran, sregfs, "ms", ms(took))
	b.add(got, sregfs, "MB", sent)
	h.sreg(ctx, "pull", "lab://"+c.img.repo+":"+c.img.tag)
	b.add(cpu, sregfs, "s", d.cpu())
	b.add(onDisk, sregfs, "of the tars", stop()/float64(c.tars))
	b.add(inUse, sregfs, "MB", float64(kilobytes(fmt.Sprintf("/proc/%d/status", d.pid()), "VmHWM:"))/1e6)
	for _, way := range []struct {
		subject
		file   string
		offset int64
	}{{mksquashfs, squashed, 0}, {sregfs, d.file(c.img), c.offset}} {
		readWhole(ctx, nil, way.file)
		found, read := c.readAll(ctx, way.file, way.offset)
		b.add(finding, way.subject, "ms", ms(found))
		b.add(reading, way.subject, "ms", ms(read))
	}
	d.stop()
	check(os.RemoveAll(h.path("cache/blobs")))
	d = h.mount(ctx)
	took, sent = c.start(ctx, d)
	b.add(ran, again, "ms", ms(took))
	b.add(got, again, "MB", sent)
}

// start runs a program of the image on a new mount, and returns how long that took, and how
// many MB the registry had sent by then.
func (c *container) start(ctx context.Context, d *daemon) (took time.Duration, sent float64) {
	file := d.file(c.img)
	root := c.b.temp("root-")
	defer func() { check(os.Remove(root)) }()
	c.reg.forget()
	start := time.Now()
	readHead(file)
	timed(ctx, "squashfuse_ll", "-o", fmt.Sprintf("offset=%d", c.offset), file, root)
	defer func() { check(exec.Command("fusermount3", "-u", root).Run()) }()
	timed(ctx, "chroot", root, "/bin/true")
	return time.Since(start), float64(c.reg.sent()) / 1e6
}

// findPartition finds where the file system begins in the file.
func (c *container) findPartition(ctx context.Context) {
	h := c.b.newHome(false, c.reg.remote())
	defer remove(h.dir)
	d := h.mount(ctx)
	defer d.stop()
	img := must(sif.LoadContainerFromPath(d.file(c.img), sif.OptLoadWithFlag(os.O_RDONLY)))
	c.offset = partition(img)
	check(img.UnloadContainer())
}

// convert makes a squashfs of the layers, which are on this disk.
func (c *container) convert(ctx context.Context) (took time.Duration, squashed string) {
	dir := c.b.temp("convert-")
	took = timed(ctx, "umoci", "unpack", "--rootless", "--image", c.layout+":1", dir+"/bundle") +
		timed(ctx, "mksquashfs", dir+"/bundle/rootfs", dir+"/squashfs", "-noappend", "-all-root", "-no-progress", "-quiet")
	remove(dir + "/bundle")
	return took, dir + "/squashfs"
}

// readAll mounts a file system by the kernel, and reads all files in it, which are in the memory of
// this machine if they have been read before.
func (c *container) readAll(ctx context.Context, file string, offset int64) (found, read time.Duration) {
	root := c.b.temp("root-")
	defer func() { check(os.Remove(root)) }()
	timed(ctx, "mount", "-t", "squashfs", "-o", fmt.Sprintf("loop,ro,offset=%d", offset), file, root)
	defer func() { check(exec.Command("umount", root).Run()) }()
	found = timed(ctx, "find", root, "-size", "+1000G")
	return found, timed(ctx, "sh", "-c", `find "$1" -type f -exec cat {} + >/dev/null`, "sh", root)
}

// inflate downloads all layers at once, each over one connection, and inflates them.
func (c *container) inflate(ctx context.Context) time.Duration {
	start := time.Now()
	together(len(c.layers), func(i int) {
		c.b.sh(ctx, `curl -sSf "$1" | "$2" -measure inflate-stdin -`, c.reg.URL+"/v2/bench/container/blobs/"+string(c.layers[i].digest), c.b.exe("bench"))
	})
	return time.Since(start)
}

// list is the argument of the workload "inflate": all layers.
func (c *container) list() string {
	var files []string
	for _, l := range c.layers {
		files = append(files, l.path)
	}
	return strings.Join(files, "\n")
}

// inflateAlone inflates and hashes the files that are listed, and returns how many seconds of
// CPU time that took.
func inflateAlone(files string) float64 {
	for file := range strings.SplitSeq(files, "\n") {
		f := must(os.Open(file))
		in, out := sha256.New(), sha256.New()
		must(io.Copy(out, must(gzip.NewReader(io.TeeReader(f, in)))))
		check(f.Close())
	}
	var use unix.Rusage
	check(unix.Getrusage(unix.RUSAGE_SELF, &use))
	return float64(use.Utime.Nano()+use.Stime.Nano()) / 1e9
}

// inflateInput inflates the standard input.
func inflateInput(string) float64 {
	return float64(must(io.Copy(io.Discard, must(gzip.NewReader(os.Stdin)))))
}

// cpu returns the seconds of CPU time that the daemon has taken.
func (d *daemon) cpu() float64 {
	fields := strings.Fields(string(must(os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.pid())))))
	var user, system float64
	must(fmt.Sscan(fields[13]+" "+fields[14], &user, &system))
	return (user + system) / 100
}

// watchDisk looks again and again how much the cache takes, until the function that it
// returns is called: that returns the most it was, in bytes.
func (c *container) watchDisk(h *home) (stop func() float64) {
	end, most := make(chan struct{}), make(chan float64)
	go func() {
		peak := 0.0
		for {
			var use int64
			_ = filepath.WalkDir(h.path("cache"), func(path string, _ os.DirEntry, err error) error {
				var st unix.Stat_t
				if err == nil && unix.Lstat(path, &st) == nil {
					use += st.Blocks * 512
				}
				return nil
			})
			peak = max(peak, float64(use))
			select {
			case <-end:
				most <- peak
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() float64 { close(end); return <-most }
}

// crowd counts what the registry sends while many start the image at once.
func (c *container) crowd(ctx context.Context) {
	const starts = 20
	name := fmt.Sprintf("%d starts at once", starts)
	for range c.b.Runs {
		h := c.b.newHome(false, c.reg.remote())
		d := h.mount(ctx)
		c.reg.forget()
		together(starts, func(int) { readHead(d.file(c.img)) })
		h.sreg(ctx, "pull", "lab://"+c.img.repo+":"+c.img.tag)
		c.b.add(name, sregfs, "bytes/size", float64(c.reg.sent())/float64(c.compressed))
		d.stop()
		remove(h.dir)
	}
	c.b.limit(name, sregfs, 1.02)
}
