// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func load(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// unsigned returns greet-signed.sif as it was before it was signed: the
// signature is the last object, in the fourth descriptor.
func unsigned(t testing.TB) []byte {
	b := load(t, "greet-signed.sif")[:2084864]
	clear(b[4096+3*sifDescriptorSize:][:sifDescriptorSize])
	return b
}

func read(t *testing.T, b []byte) *Facts {
	t.Helper()
	f, err := Read(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// counting counts the ranges and bytes that are read.
type counting struct {
	io.ReaderAt
	reads, bytes atomic.Int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.reads.Add(1)
	c.bytes.Add(int64(len(p)))
	return c.ReaderAt.ReadAt(p, off)
}

func TestRead_golden(t *testing.T) {
	t.Parallel()
	images := map[string][]byte{
		"greet-signed.sif": load(t, "greet-signed.sif"),
		"greet.sif":        unsigned(t),
		"greet.simg":       load(t, "greet.simg"),
		"launched.simg":    append([]byte(launchLine), load(t, "small-gzip.simg")...),
	}
	for name, image := range images {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &counting{ReaderAt: bytes.NewReader(image)}
			facts, err := Read(t.Context(), c, int64(len(image)))
			if err != nil {
				t.Fatal(err)
			}
			if c.reads.Load() > 4 || c.bytes.Load() > 4*pageSize {
				t.Errorf("%d reads of %d bytes, want at most 4 of %d", c.reads.Load(), c.bytes.Load(), 4*pageSize)
			}
			t.Logf("%d reads, %d of %d bytes", c.reads.Load(), c.bytes.Load(), len(image))
			got, err := json.MarshalIndent(facts, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want := load(t, name+".json")
			if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestRead_codecs reads the same small tree from images of each compression,
// with blocks of 4 KiB, fragments, and a symbolic link that is not followed.
func TestRead_codecs(t *testing.T) {
	t.Parallel()
	want := read(t, load(t, "small-plain.simg"))
	if want.RunScript != "#!/bin/sh\nexec hello\n" || want.Labels["n"] != "3" || len(want.Environment) != 2 ||
		!strings.HasSuffix(want.Environment["90-environment.sh"], "export V899=7119181\n") || want.Notes != nil {
		t.Fatalf("plain: %+v", want)
	}
	for _, codec := range []string{"gzip", "xz", "lz4", "zstd"} {
		if diff := cmp.Diff(want, read(t, load(t, "small-"+codec+".simg")), cmp.AllowUnexported(Facts{})); diff != "" {
			t.Errorf("%s: -plain +got:\n%s", codec, diff)
		}
	}
	lzo := read(t, load(t, "small-lzo.simg"))
	if lzo.Format != "simg" || len(lzo.Notes) != 1 || !strings.Contains(lzo.Notes[0], "LZO") {
		t.Errorf("lzo: %+v", lzo)
	}
}

// TestRead_unreadableRoot takes from the builder's summary what an unreadable
// file system hides.
func TestRead_unreadableRoot(t *testing.T) {
	t.Parallel()
	b := unsigned(t)
	clear(b[36864:][:superblockSize])
	f := read(t, b)
	want := read(t, unsigned(t))
	if f.RunScript == "" || f.Labels["Author"] != "sregfs" || f.Definition != want.Definition || len(f.Notes) != 1 {
		t.Errorf("facts %+v", f)
	}
}

func TestRead_others(t *testing.T) {
	t.Parallel()
	ext3 := make([]byte, 8192)
	copy(ext3[1024+56:], "\x53\xef")
	copy(ext3[1024+0x78:], "container")
	tests := map[string]struct {
		data   []byte
		format string
	}{
		"empty": {nil, "unknown"},
		"text":  {[]byte("hello\n"), "unknown"},
		"gzip":  {gzipped(t, []byte("and so on")), "gzip"},
		"ext3":  {ext3, "ext3"},
		"html":  {[]byte("<html>404</html>"), "unknown"},
	}
	for name, tt := range tests {
		f := read(t, tt.data)
		if f.Format != tt.format || f.Notes != nil {
			t.Errorf("%s: %+v, want format %s", name, f, tt.format)
		}
		if format, err := Complete(bytes.NewReader(tt.data), int64(len(tt.data))); !errors.Is(err, ErrNotImage) {
			t.Errorf("%s: Complete = %q, %v, want ErrNotImage", name, format, err)
		}
	}
	if got := read(t, ext3).Labels["volume"]; got != "container" {
		t.Errorf("ext3 label %q", got)
	}
}

// failing fails from an offset on, as a registry that goes away does.
type failing struct {
	io.ReaderAt
	from int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, backends.ErrUnavailable
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestRead_errors(t *testing.T) {
	t.Parallel()
	b := load(t, "greet-signed.sif")
	r := failing{bytes.NewReader(b), 1 << 20}
	f, err := Read(t.Context(), r, int64(len(b)))
	if !errors.Is(err, backends.ErrUnavailable) || f == nil || f.Arch != "amd64" {
		t.Errorf("Read = %+v, %v", f, err)
	}
	if _, err := Complete(r, int64(len(b))); !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, ErrIncomplete) {
		t.Errorf("Complete: %v, want ErrUnavailable and no judgement", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, bytes.NewReader(b), int64(len(b))); !errors.Is(err, context.Canceled) {
		t.Errorf("Read: %v, want context.Canceled", err)
	}
	if hot := Hot(ctx, bytes.NewReader(b), int64(len(b))); len(hot) == 0 {
		t.Error("Hot gives nothing without reading")
	}
}

// blob is a reader with a context, as cache.Blob is.
type blob struct{ *bytes.Reader }

func (b blob) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	return b.Reader.ReadAt(p, off)
}

func (blob) ReadAt([]byte, int64) (int, error) { return 0, errors.New("read without a context") }

func TestRead_context(t *testing.T) {
	t.Parallel()
	b := load(t, "small-gzip.simg")
	f, err := Read(t.Context(), blob{bytes.NewReader(b)}, int64(len(b)))
	if err != nil || f.RunScript == "" {
		t.Errorf("Read = %+v, %v", f, err)
	}
}

func TestComplete(t *testing.T) {
	t.Parallel()
	for name, format := range map[string]string{
		"greet-signed.sif": "sif", "greet.simg": "simg", "small-lzo.simg": "simg", "small-plain.simg": "simg",
	} {
		b := load(t, name)
		if got, err := Complete(bytes.NewReader(b), int64(len(b))); got != format || err != nil {
			t.Errorf("%s: Complete = %q, %v", name, got, err)
		}
	}
	b := append([]byte(launchLine), load(t, "small-xz.simg")...)
	if got, err := Complete(bytes.NewReader(b), int64(len(b))); got != "simg" || err != nil {
		t.Errorf("after a launch line: Complete = %q, %v", got, err)
	}
}

// TestComplete_truncated cuts images at many places: no part passes for a whole.
func TestComplete_truncated(t *testing.T) {
	t.Parallel()
	images := map[string]struct {
		whole []byte
		step  int
	}{
		"sif":    {unsigned(t), 4096},
		"signed": {load(t, "greet-signed.sif"), 64 << 10},
		"simg":   {load(t, "greet.simg"), 64 << 10},
	}
	for name, image := range images {
		whole := image.whole
		size := len(whole)
		if name == "simg" { // padded to 4 KiB: what is used is what counts
			size = int(binary.LittleEndian.Uint64(whole[40:]))
		}
		cuts := []int{1, 31, 32, 33, 42, 95, 96, 127, 128, 129, size - 1}
		for n := image.step; n < size; n += image.step {
			cuts = append(cuts, n)
		}
		for _, n := range cuts {
			_, err := Complete(bytes.NewReader(whole[:n]), int64(n))
			tiny := n < superblockSize && errors.Is(err, ErrNotImage)
			if !errors.Is(err, ErrIncomplete) && !tiny {
				t.Errorf("%s cut to %d bytes: %v, want ErrIncomplete", name, n, err)
			}
			if errors.Is(err, ErrIncomplete) && !errors.Is(err, backends.ErrCorrupt) {
				t.Errorf("%v is no ErrCorrupt", err)
			}
		}
	}
}

// TestComplete_holed is about files whose size was set before their bytes
// arrived: zeros at the end are found, too.
func TestComplete_holed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"greet-signed.sif", "greet.simg"} {
		b := load(t, name)
		for n := lastTable(b); n > 0; n -= 64 << 10 {
			clear(b[n:])
			if format, err := Complete(bytes.NewReader(b), int64(len(b))); err == nil {
				t.Errorf("%s with a hole from %d on passes for %s", name, n, format)
			}
		}
	}
}

// lastTable returns where the list of id blocks of the squashfs in b is.
func lastTable(b []byte) int {
	base := bytes.Index(b, squashMagic)
	return base + int(binary.LittleEndian.Uint64(b[base+48:]))
}

func TestComplete_damaged(t *testing.T) {
	t.Parallel()
	put := func(off int, v uint64) func([]byte) {
		return func(b []byte) { binary.LittleEndian.PutUint64(b[off:], v) }
	}
	part := 4096 + 2*sifDescriptorSize + 17 // offset and size of the partition
	tests := map[string]struct {
		damage func(b []byte)
		want   error
	}{
		"version":              {func(b []byte) { copy(b[42:], "99") }, ErrNotImage},
		"no descriptors":       {put(64+24, 0), ErrNotImage},
		"many descriptors":     {put(64+24, 1<<60), ErrNotImage},
		"negative descriptors": {put(64+24, 1<<63), ErrNotImage},
		"descriptors beyond":   {put(64+32, 1<<40), ErrIncomplete},
		"descriptors overflow": {put(64+32, 1<<63-1), ErrIncomplete},
		"descriptors in head":  {put(64+32, 1), ErrNotImage},
		"object beyond":        {put(part, 1<<40), ErrIncomplete},
		"object negative":      {put(part, 1<<63), ErrIncomplete},
		"object overflow":      {put(part+8, 1<<63-1), ErrIncomplete},
		"partition too small":  {put(part+8, 4096), ErrIncomplete},
		"partition elsewhere":  {put(part, 40960), ErrIncomplete},
		"nothing used":         {func(b []byte) { clear(b[4096:32176]) }, ErrIncomplete},
		"squashfs longer":      {put(36864+40, 1<<40), ErrIncomplete},
		"squashfs no size":     {put(36864+40, 0), ErrIncomplete},
		"squashfs tables":      {put(36864+64, 1<<50), ErrIncomplete},
	}
	for name, tt := range tests {
		b := unsigned(t)
		tt.damage(b)
		_, err := Complete(bytes.NewReader(b), int64(len(b)))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if tt.want == ErrNotImage && !errors.Is(err, fs.ErrInvalid) { //nolint:errorlint // the bare sentinel
			t.Errorf("%s: %v is no fs.ErrInvalid", name, err)
		}
		read(t, b) // and nothing worse than notes
	}
}

func TestHot(t *testing.T) {
	t.Parallel()
	sif, simg := unsigned(t), load(t, "greet.simg")
	inodes := int64(binary.LittleEndian.Uint64(simg[64:]))
	used := int64(binary.LittleEndian.Uint64(simg[40:]))
	noise := bytes.Repeat([]byte("noise "), 1<<20)
	tests := map[string]struct {
		image []byte
		want  []Range
	}{
		"sif":   {sif, []Range{{0, 36864 + hotFirst}, {36864 + inodes, used - inodes}}},
		"simg":  {simg, []Range{{0, hotFirst}, {inodes, used - inodes}}},
		"noise": {noise, []Range{{0, hotHead}, {int64(len(noise)) - hotTail, hotTail}}},
		"short": {noise[:3000], []Range{{0, 3000}}},
		"empty": {nil, nil},
	}
	for name, tt := range tests {
		c := &counting{ReaderAt: bytes.NewReader(tt.image)}
		if diff := cmp.Diff(tt.want, Hot(t.Context(), c, int64(len(tt.image)))); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
		if c.reads.Load() > 2 {
			t.Errorf("%s: %d reads", name, c.reads.Load())
		}
	}
	// Tables too large are cut to their end.
	big := append(bytes.Clone(simg[:superblockSize]), make([]byte, 20<<20)...)
	binary.LittleEndian.PutUint64(big[40:], uint64(len(big)))
	for off := 48; off <= 88; off += 8 {
		binary.LittleEndian.PutUint64(big[off:], superblockSize)
	}
	hot := Hot(t.Context(), bytes.NewReader(big), int64(len(big)))
	if len(hot) != 2 || hot[1].Off+hot[1].N != int64(len(big)) || hot[0].N+hot[1].N > hotMax {
		t.Errorf("large tables: %v", hot)
	}
}
