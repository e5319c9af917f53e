// SPDX-License-Identifier: Apache-2.0

package compact

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
	"github.com/sregfs/sregfs/backends/vsif"
)

const (
	configText = `{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers"}}`
	manifest   = `{"schemaVersion":2}`
)

// A member is an entry of a tar that a test makes.
type member struct {
	tar.Header
	content string
}

func file(name, content string) member {
	return member{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, ModTime: day}, content}
}

var day = time.Unix(1_000_000_000, 0)

// torture is a tree with one of each thing that a tree can have, and files of such sizes.
func torture(sizes ...int) (all []member) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable on purpose
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	text := strings.Repeat("some text that repeats itself\n", 10_000)
	attr := func(m member, key, value string) member {
		if m.PAXRecords == nil {
			m.PAXRecords = map[string]string{}
		}
		m.PAXRecords["SCHILY.xattr.user."+key] = value
		return m
	}
	for i, n := range append(sizes, 0, 1, 2*vsif.BlockSize) {
		all = append(all, file(fmt.Sprintf("sizes/text-%d", n), (text + text)[:n]), file(fmt.Sprintf("sizes/noise-%d", n), noise(n)),
			file(fmt.Sprintf("sizes/zeros-%d", n), string(make([]byte, n))), file(fmt.Sprintf("sizes/half-%d", i), string(make([]byte, n))+noise(n)))
	}
	all = append(all,
		member{tar.Header{Name: "suid", Typeflag: tar.TypeReg, Mode: 0o4755, ModTime: day}, "x"},
		member{tar.Header{Name: "sticky", Typeflag: tar.TypeDir, Mode: 0o1777, ModTime: day.Add(time.Hour)}, ""},
		member{tar.Header{Name: "none", Typeflag: tar.TypeReg, Mode: 0, ModTime: time.Unix(1, 0)}, "secret"},
		member{tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600, ModTime: day}, ""},
		member{tar.Header{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: day}, ""},
		member{tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "usr/" + strings.Repeat("long/", 600), ModTime: day}, ""},
		attr(attr(file("attr/small", "x"), "one", "1"), "two", strings.Repeat("v", 3000)), attr(file("attr/same", "y"), "one", "1"),
		attr(file("attr/large", text), "one", "1"),
		attr(member{tar.Header{Name: "attr/dir", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: day}, ""}, "three", "3"),
		member{tar.Header{Name: "hard/small", Typeflag: tar.TypeLink, Linkname: "suid", ModTime: day}, ""},
		member{tar.Header{Name: "hard/large", Typeflag: tar.TypeLink, Linkname: "sizes/text-131072", ModTime: day}, ""},
		member{tar.Header{Name: "hard/pipe", Typeflag: tar.TypeLink, Linkname: "pipe", ModTime: day}, ""},
		file(strings.Repeat("n", 255), "long"),
	)
	for i := range 2500 {
		all = append(all, file(fmt.Sprintf("big/a-file-with-some-name-%05d", i), fmt.Sprint(i)))
		if i%100 == 0 {
			all = append(all, file(fmt.Sprintf("wide/%03d/x", i), "x"))
		}
	}
	return all
}

// layOut writes the image of one layer to a file.
func layOut(tb testing.TB, layer string) (path string) {
	tb.Helper()
	in, err := os.Open(layer)
	if err != nil {
		tb.Fatal(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	var entries []vsif.Entry
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			tb.Fatal(err)
		}
		at, err := in.Seek(0, io.SeekCurrent)
		if err != nil {
			tb.Fatal(err)
		}
		e, ok, err := vsif.FromHeader(h, at)
		if err != nil {
			tb.Fatal(err)
		}
		if ok {
			entries = append(entries, e)
		}
	}
	bounds := []int64{info.Size()}
	plan, err := vsif.NewPlan(int64(len(manifest)), int64(len(configText)), bounds)
	if err != nil {
		tb.Fatal(err)
	}
	tree := vsif.NewTree()
	if err := tree.Add(entries); err != nil {
		tb.Fatal(err)
	}
	img, err := plan.Build(tree, vsif.Source{Manifest: []byte(manifest), Config: []byte(configText), Bounds: bounds, Tars: bounds})
	if err != nil {
		tb.Fatal(err)
	}
	out, err := os.Create(filepath.Join(tb.TempDir(), "image.sif"))
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	for _, p := range img.Pieces {
		if _, err := out.WriteAt(p.Text, p.Offset); err != nil {
			tb.Fatal(err)
		}
	}
	if _, err := out.Seek(plan.Layers[0].Offset, io.SeekStart); err != nil {
		tb.Fatal(err)
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		tb.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		tb.Fatal(err)
	}
	if err := out.Truncate(plan.Size); err != nil {
		tb.Fatal(err)
	}
	return out.Name()
}

// image lays out a tree.
func image(tb testing.TB, members []member) string {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		m.Size = int64(len(m.content))
		if err := w.WriteHeader(&m.Header); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, m.content); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "layer.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return layOut(tb, path)
}

// compacted writes an image once more.
func compacted(tb testing.TB, path string, o Options) (small string) {
	tb.Helper()
	in, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(tb.TempDir(), "small.sif"))
	if err != nil {
		tb.Fatal(err)
	}
	defer out.Close()
	size, err := Write(tb.Context(), out, in, o)
	if err != nil {
		tb.Fatal(err)
	}
	if info, err := out.Stat(); err != nil || info.Size() != size {
		tb.Fatalf("%d bytes, want %d, %v", info.Size(), size, err)
	}
	return out.Name()
}

// offset returns where the squashfs of an image begins.
func offset(tb testing.TB, path string) string {
	tb.Helper()
	at := bytes.Index(content(tb, path), []byte("hsqs"))
	if at%align != 0 {
		tb.Fatalf("the partition is at %d", at)
	}
	return fmt.Sprint(at)
}

func unpack(tb testing.TB, path string) (root string) {
	tb.Helper()
	root = filepath.Join(tb.TempDir(), "root")
	out, err := exec.Command("unsquashfs", "-no-progress", "-offset", offset(tb, path), "-d", root, path).CombinedOutput()
	if err != nil {
		tb.Fatalf("unsquashfs: %v\n%s", err, out)
	}
	return root
}

// facts returns all there is to know of a tree; inode numbers and allocated blocks too,
// if it is a mounted one.
func facts(tb testing.TB, root string, mounted bool) map[string]string {
	tb.Helper()
	all := make(map[string]string)
	inodes := make(map[uint64]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fact := fmt.Sprintf("%v %o %d:%d %d %d", info.Mode().Type(), st.Mode, st.Uid, st.Gid, st.Nlink, info.ModTime().Unix())
		if mounted {
			fact += fmt.Sprintf(" inode %d", st.Ino)
		}
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fact += fmt.Sprintf(" %d %x", len(data), sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := os.Readlink(path)
			if err != nil {
				return err
			}
			fact += " " + link
		}
		if first, ok := inodes[st.Ino]; ok && !d.IsDir() {
			fact += " = " + first
		} else {
			inodes[st.Ino] = rel
		}
		all[rel] = fact + attributes(tb, path)
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

func attributes(tb testing.TB, path string) string {
	tb.Helper()
	buf := make([]byte, 64<<10)
	n, err := syscall.Listxattr(path, buf)
	if info, lerr := os.Lstat(path); lerr == nil && !info.Mode().IsRegular() && !info.IsDir() || err != nil {
		return ""
	}
	var out []string
	for key := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if !strings.HasPrefix(key, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := syscall.Getxattr(path, key, value)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, fmt.Sprintf(" %s=%x", key, sha256.Sum256(value[:n])))
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	for path, fact := range want {
		if got[path] != fact {
			t.Errorf("%.40s:\n got %.300s\nwant %.300s", path, got[path], fact)
		}
	}
}

// All who read an image find the same tree in the copy, down to the numbers of the inodes.
// And what is written depends on nothing but what is read: not on the number of cores,
// nor on which blocks a worker has had before.
func TestWrite(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "unsquashfs", "squashfuse", "losetup")
	const small, large = 128 << 10, 256 << 10
	path := image(t, torture(vsif.BlockSize-1, vsif.BlockSize, vsif.BlockSize+1, small-1, small+1, large-1, large, large+1, 2*large, 2*large+5))
	tools := map[string]func(t *testing.T, path string) map[string]string{
		"unsquashfs": func(t *testing.T, path string) map[string]string { return facts(t, unpack(t, path), false) },
		"kernel": func(t *testing.T, path string) map[string]string {
			return mounted(t, []string{"mount", "-t", "squashfs", "-o", "loop,ro,offset=" + offset(t, path), path})
		},
		"squashfuse": func(t *testing.T, path string) map[string]string {
			return mounted(t, []string{"squashfuse", "-o", "offset=" + offset(t, path), path})
		},
	}
	want := make(map[string]map[string]string)
	for tool, read := range tools {
		want[tool] = read(t, path)
	}
	for _, codec := range []Codec{Gzip, Zstd} {
		copied := compacted(t, path, Options{Codec: codec})
		for tool, read := range tools {
			t.Run(tool+" "+string(codec), func(t *testing.T) { compare(t, read(t, copied), want[tool]) })
		}
		if !bytes.Equal(content(t, copied), content(t, compacted(t, path, Options{Codec: codec, Workers: 7}))) {
			t.Errorf("%s: with 7 workers it is another file", codec)
		}
	}
}

func content(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// mounted returns the facts of what a command mounts.
func mounted(t *testing.T, args []string) map[string]string {
	t.Helper()
	at := t.TempDir()
	if out, err := exec.Command(args[0], append(args[1:], at)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	return facts(t, at, true)
}

// A short image, one with bytes that are wrong, and another file are errors.
func TestDamaged(t *testing.T) {
	t.Parallel()
	path := image(t, torture())
	whole := content(t, path)
	write := func(b []byte) error {
		out, err := os.Create(filepath.Join(t.TempDir(), "x"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		_, err = Write(t.Context(), out, bytes.NewReader(b), Options{})
		return err
	}
	for _, n := range []int{0, 100, 100_000, len(whole) / 2} {
		if err := write(whole[:n]); err == nil {
			t.Errorf("the first %d bytes are an image", n)
		}
	}
	if err := write(content(t, compacted(t, path, Options{}))); err == nil {
		t.Error("what was written is taken for an image as it was laid out")
	}
	// None of these panics, and none runs for ever; most are not noticed, as no
	// table has a sum.
	at := bytes.Index(whole, []byte("hsqs"))
	tables := at + int(uint32(whole[at+64])|uint32(whole[at+65])<<8|uint32(whole[at+66])<<16|uint32(whole[at+67])<<24)
	r := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // repeatable on purpose
	for range 20 {
		bad := bytes.Clone(whole)
		for range 3 {
			bad[tables+r.IntN(100_000)] ^= byte(1 << r.IntN(8))
		}
		bad[at+r.IntN(superSize)] ^= byte(r.IntN(2) << r.IntN(8))
		_ = write(bad)
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	in, err := os.Open(image(t, torture()))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Write(ctx, out, in, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v, want %v", err, context.Canceled)
	}
}

// BenchmarkWrite compares with mksquashfs of the same tree: of the files of Go, or of
// what SREGFS_COMPACT_TREE names.
func BenchmarkWrite(b *testing.B) {
	ocitest.Need(b, "mksquashfs", "unsquashfs", "tar")
	tree := os.Getenv("SREGFS_COMPACT_TREE")
	if tree == "" {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			b.Fatal(err)
		}
		tree = strings.TrimSpace(string(out))
	}
	layer := filepath.Join(b.TempDir(), "layer.tar")
	if out, err := exec.Command("tar", "-C", tree, "-cf", layer, ".").CombinedOutput(); err != nil {
		b.Fatalf("tar: %v: %s", err, out)
	}
	path := layOut(b, layer)
	root := unpack(b, path)
	for _, codec := range []Codec{Gzip, Zstd} {
		b.Run("ours/"+string(codec), func(b *testing.B) {
			for b.Loop() {
				info, err := os.Stat(compacted(b, path, Options{Codec: codec}))
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(info.Size())/1e6, "MB")
			}
		})
		b.Run("mksquashfs/"+string(codec), func(b *testing.B) {
			for b.Loop() {
				to := filepath.Join(b.TempDir(), "image")
				if out, err := exec.Command("mksquashfs", root, to, "-noappend", "-no-progress", "-comp", string(codec)).CombinedOutput(); err != nil {
					b.Fatalf("mksquashfs: %v: %s", err, out)
				}
				info, err := os.Stat(to)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(info.Size())/1e6, "MB")
			}
		})
	}
}
