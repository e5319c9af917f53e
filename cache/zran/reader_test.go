// SPDX-License-Identifier: Apache-2.0

package zran

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	kgzip "github.com/klauspost/compress/gzip"

	"github.com/sregfs/sregfs/backends/oci/ocitest"
)

// mixed makes n bytes: some that repeat near and far, some that do not.
func mixed(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+70_000)
	for len(b) < n {
		switch k := r.IntN(3000); r.IntN(4) {
		case 0:
			for range k {
				b = append(b, byte(r.Uint32()))
			}
		case 1:
			b = fmt.Appendf(b, "%d of these lines tell %x\n", k, r.Uint32N(1<<20))
		case 2:
			b = append(b, bytes.Repeat([]byte{byte(k)}, k)...)
		default:
			if len(b) > k {
				at := max(0, len(b)-r.IntN(40_000)-1)
				b = append(b, b[at:min(len(b), at+k)]...)
			}
		}
	}
	return b[:n]
}

// member compresses b, and flushes after each part of it of flush bytes.
func member(tb testing.TB, level, flush int, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, level)
	if err != nil {
		tb.Fatal(err)
	}
	for len(b) > 0 {
		n := min(len(b), flush)
		if _, err := w.Write(b[:n]); err != nil {
			tb.Fatal(err)
		}
		b = b[n:]
		if err := w.Flush(); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

const never = 1 << 40

// rich is a member whose header has all that a header can have.
func rich(tb testing.TB, b []byte) []byte {
	tb.Helper()
	h := []byte{0x1f, 0x8b, 8, headerCRC | extra | name | comment, 1, 2, 3, 4, 0, 3}
	h = append(h, 0xbc, 0x02)
	h = append(h, bytes.Repeat([]byte{7}, 700)...)
	h = append(h, "name\x00comment\x00"...)
	h = binary.LittleEndian.AppendUint16(h, uint16(crc32.ChecksumIEEE(h)))
	return append(h, member(tb, 6, never, b)[10:]...)
}

type stream struct {
	name      string
	data, out []byte
}

// streams makes gzip streams of every kind of block and member.
func streams(tb testing.TB, n int) (all []stream) {
	tb.Helper()
	text := mixed(n)
	add := func(name string, out []byte, parts ...[]byte) {
		all = append(all, stream{name, bytes.Join(parts, nil), out})
	}
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		add(fmt.Sprintf("level %d", level), text, member(tb, level, never, text))
		add(fmt.Sprintf("level %d with flushes", level), text, member(tb, level, 1+n/7, text))
	}
	few := []byte("few, few")
	add("fixed", few, member(tb, 6, never, few))
	add("fixed with flushes", few, member(tb, 6, 1, few))
	noise := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(noise)
	add("stored", noise, member(tb, 6, never, noise))
	add("zeros", make([]byte, 3*n), member(tb, 9, never, make([]byte, 3*n)))
	add("nothing", nil, member(tb, 6, never, nil))
	add("header", text, rich(tb, text))
	third := n / 3
	empty := member(tb, 6, never, nil)
	add("members", text, empty, member(tb, 6, never, text[:third]), empty, empty, rich(tb, text[third:2*third]), member(tb, 0, never, text[2*third:]), empty)
	add("padded", text, member(tb, 6, never, text), make([]byte, 10_240))
	return all
}

// read reads all in parts of changing sizes.
func read(r io.Reader, seed uint64) ([]byte, error) {
	sizes := rand.New(rand.NewPCG(seed, 0))
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		b := buf[:1<<sizes.IntN(17)-1]
		n, err := r.Read(b)
		all = append(all, b[:n]...)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// points reads a stream, and returns the points that are told each span bytes.
func points(tb testing.TB, s stream, span int64) (all []Point) {
	tb.Helper()
	z := NewReader(bytes.NewReader(s.data))
	var got int64
	z.SetSpan(span, func(p Point) {
		if p.Out != got {
			tb.Errorf("%s: told of %d after %d bytes were read", s.name, p.Out, got)
		}
		all = append(all, p)
	})
	b := make([]byte, 1000)
	for {
		n, err := z.Read(b)
		if !bytes.Equal(b[:n], s.out[got:got+int64(n)]) {
			tb.Fatalf("%s: other bytes at %d", s.name, got)
		}
		got += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			tb.Fatalf("%s: %v", s.name, err)
		}
	}
	if got != int64(len(s.out)) {
		tb.Fatalf("%s: %d bytes, want %d", s.name, got, len(s.out))
	}
	return all
}

func TestReader(t *testing.T) {
	t.Parallel()
	for i, s := range streams(t, 100_000) {
		for name, r := range map[string]io.Reader{
			"whole":    bytes.NewReader(s.data),
			"one byte": iotest.OneByteReader(bytes.NewReader(s.data)),
			"halves":   iotest.HalfReader(bytes.NewReader(s.data)),
			"data err": iotest.DataErrReader(bytes.NewReader(s.data)),
		} {
			got, err := read(NewReader(r), uint64(i))
			if err != nil || !bytes.Equal(got, s.out) {
				t.Errorf("%s, %s: %d bytes, %v; want %d", s.name, name, len(got), err, len(s.out))
			}
		}
	}
}

// From each point that there is, the rest comes out, and its checksum is checked;
// and the points behind it are the same ones.
func TestResume(t *testing.T) {
	t.Parallel()
	var z Reader // used again and again
	for i, s := range streams(t, 50_000) {
		all := points(t, s, 0)
		if len(all) == 0 || all[0].Out != 0 || len(all[0].Window) != 0 {
			t.Errorf("%s: %d points, and none at the start", s.name, len(all))
		}
		wrong := bytes.Clone(s.data)
		end := len(bytes.TrimRight(s.data, "\x00"))
		if s.name == "nothing" || s.name == "members" {
			end = len(s.data)
		}
		wrong[end-1] ^= 0x40 // The length modulo 1<<32, or the sum of no bytes.
		for j, p := range all {
			var again []Point
			z.Reset(bytes.NewReader(s.data[p.In:]), p)
			z.SetSpan(0, func(p Point) { again = append(again, p) })
			got, err := read(&z, uint64(i+j))
			if err != nil || !bytes.Equal(got, s.out[p.Out:]) {
				t.Fatalf("%s: from point %d, which is at bit %d: %d bytes, %v; want %d", s.name, j, p.In*8-int64(p.Bits), len(got), err, len(s.out)-int(p.Out))
			}
			if len(again) != len(all)-j || !equal(again[0], p) || !equal(again[len(again)-1], all[len(all)-1]) {
				t.Errorf("%s: from point %d other points are told", s.name, j)
			}
			if _, err := read(Resume(bytes.NewReader(wrong[p.In:]), p), 1); !errors.Is(err, ErrChecksum) {
				t.Errorf("%s: from point %d, with a wrong trailer: %v", s.name, j, err)
			}
			p.CRC ^= 1
			if _, err := read(Resume(bytes.NewReader(s.data[p.In:]), p), 1); !errors.Is(err, ErrChecksum) {
				t.Errorf("%s: from point %d, with a wrong sum: %v", s.name, j, err)
			}
		}
	}
}

func equal(p, q Point) bool { return reflect.DeepEqual(p, q) }

func TestSpan(t *testing.T) {
	t.Parallel()
	const span = 30_000
	for _, s := range streams(t, 250_000) {
		var last int64
		for _, p := range points(t, s, span) {
			if p.Out-last < span {
				t.Errorf("%s: point at %d after one at %d", s.name, p.Out, last)
			}
			if want := s.out[max(0, p.Out-windowSize):p.Out]; !bytes.HasSuffix(want, p.Window) || s.name != "members" && len(p.Window) != len(want) {
				t.Errorf("%s: the window at %d is not the output before it", s.name, p.Out)
			}
			last = p.Out
		}
		if s.name == "level 6" && last < 150_000 {
			t.Errorf("%s: the last point is at %d of %d", s.name, last, len(s.out))
		}
	}
}

// What other programs make is read, and points in it are right.
func TestTools(t *testing.T) {
	t.Parallel()
	ocitest.Need(t, "gzip", "pigz")
	text := mixed(500_000)
	for _, command := range []string{"gzip -1", "gzip -6", "gzip -9 --rsyncable", "pigz -p 3 -b 128", "pigz -9 -i", "pigz -0", "pigz -H", "pigz -U"} {
		args := strings.Fields(command)
		cmd := exec.CommandContext(t.Context(), args[0], append(args[1:], "-c")...)
		cmd.Stdin, cmd.Stderr = bytes.NewReader(text), os.Stderr
		data, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		s := stream{command, data, text}
		for _, p := range points(t, s, 70_000) {
			got, err := io.ReadAll(Resume(bytes.NewReader(data[p.In:]), p))
			if err != nil || !bytes.Equal(got, text[p.Out:]) {
				t.Errorf("%s: from %d: %d bytes, %v", command, p.Out, len(got), err)
			}
		}
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	var z Reader
	for _, s := range streams(t, 600) {
		if s.name == "padded" {
			continue
		}
		// Where a member ends the stream may end, too.
		ends := map[int]bool{}
		for at := bytes.NewReader(s.data); at.Len() > 0; {
			r, err := gzip.NewReader(at)
			if err != nil {
				t.Fatal(err)
			}
			r.Multistream(false)
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Fatal(err)
			}
			ends[len(s.data)-at.Len()] = true
		}
		all := points(t, s, 0)
		p := all[len(all)/2]
		for n := range s.data {
			z.Reset(bytes.NewReader(s.data[:n]), Point{})
			got, err := io.ReadAll(&z)
			if ends[n] {
				err = errors.Join(err, io.ErrUnexpectedEOF)
			}
			if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(s.out, got) {
				t.Errorf("%s, the first %d bytes: %d bytes, %v", s.name, n, len(got), err)
			}
			if int64(n) < p.In || ends[n] {
				continue
			}
			z.Reset(bytes.NewReader(s.data[p.In:n]), p)
			got, err = io.ReadAll(&z)
			if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(s.out[p.Out:], got) {
				t.Errorf("%s, from %d to %d: %d bytes, %v", s.name, p.In, n, len(got), err)
			}
		}
	}
}

// Whichever byte is wrong, it is noticed, but for those that no sum covers.
func TestCorrupt(t *testing.T) {
	t.Parallel()
	var z Reader
	for _, s := range streams(t, 300) {
		for i := range s.data {
			bad := bytes.Clone(s.data)
			bad[i] ^= 1 << (i % 8)
			z.Reset(bytes.NewReader(bad), Point{})
			got, err := io.ReadAll(io.LimitReader(&z, 1<<20))
			if err == nil && !bytes.Equal(got, s.out) {
				t.Errorf("%s: bit %d of byte %d: %d other bytes", s.name, i%8, i, len(got))
			}
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	good := member(t, 6, never, []byte("text"))
	failed := errors.New("line is down")
	for _, tt := range []struct {
		name string
		r    io.Reader
		p    Point
		want error
	}{
		{"empty", strings.NewReader(""), Point{}, io.ErrUnexpectedEOF},
		{"no gzip", strings.NewReader("a stream that is no gzip"), Point{}, ErrHeader},
		{"zeros", bytes.NewReader(make([]byte, 100)), Point{}, ErrHeader},
		{"garbage behind", bytes.NewReader(append(bytes.Clone(good), "garbage"...)), Point{}, io.ErrUnexpectedEOF},
		{"much garbage behind", bytes.NewReader(append(bytes.Clone(good), "garbage, and more"...)), Point{}, ErrHeader},
		{"zeros and garbage behind", bytes.NewReader(append(bytes.Clone(good), 0, 0, 1)), Point{}, ErrHeader},
		{"line that ended", io.MultiReader(bytes.NewReader(good[:15]), iotest.ErrReader(fmt.Errorf("line: %w", io.EOF))), Point{}, io.EOF},
		{"line", io.MultiReader(bytes.NewReader(good[:15]), iotest.ErrReader(failed)), Point{}, failed},
		{"bits", bytes.NewReader(good[10:]), Point{In: 10, Bits: 8}, ErrPoint},
		{"window", bytes.NewReader(good[10:]), Point{In: 10, Window: make([]byte, windowSize+1)}, ErrPoint},
	} {
		if _, err := io.ReadAll(Resume(tt.r, tt.p)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	z := NewReader(bytes.NewReader(good))
	if n, err := z.Read(nil); n != 0 || err != nil {
		t.Errorf("Read(nil) = %d, %v", n, err)
	}
}

// FuzzReader holds the decoder against that of which it was made.
func FuzzReader(f *testing.F) {
	for _, s := range streams(f, 3000) {
		f.Add(s.data)
	}
	const limit = 1 << 20
	var z Reader
	f.Fuzz(func(t *testing.T, data []byte) {
		var want []byte
		r, wantErr := gzip.NewReader(bytes.NewReader(data))
		if wantErr == nil {
			want, wantErr = io.ReadAll(io.LimitReader(r, limit))
		}
		z.Reset(bytes.NewReader(data), Point{})
		var all []Point
		z.SetSpan(1, func(p Point) {
			if len(all) < 10 {
				all = append(all, p)
			}
		})
		got, err := io.ReadAll(io.LimitReader(&z, limit))
		if !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, want %d; %v, want %v", len(got), len(want), err, wantErr)
		}
		if padded := errors.Is(wantErr, gzip.ErrHeader) || errors.Is(wantErr, io.ErrUnexpectedEOF); padded && err == nil {
			err, wantErr = nil, nil // The standard library does not allow zeros at the end.
			if !bytes.HasSuffix(data, []byte{0}) {
				t.Fatal("what is behind the last member was passed over")
			}
		}
		if (err == nil) != (wantErr == nil || errors.Is(wantErr, io.EOF) && len(data) > 0) {
			t.Fatalf("error %v, want %v", err, wantErr)
		}
		for _, p := range all {
			z.Reset(bytes.NewReader(data[p.In:]), p)
			rest, restErr := io.ReadAll(io.LimitReader(&z, limit-p.Out))
			if !bytes.Equal(rest, got[p.Out:]) || fmt.Sprint(restErr) != fmt.Sprint(err) {
				t.Fatalf("from %d: %d bytes, want %d; %v, want %v", p.Out, len(rest), int64(len(got))-p.Out, restErr, err)
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	path, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	data := member(b, 6, never, program)
	for name, open := range map[string]func() (io.Reader, error){
		"zran": func() (io.Reader, error) { return NewReader(bytes.NewReader(data)), nil },
		"zran with points": func() (io.Reader, error) {
			z := NewReader(bytes.NewReader(data))
			z.SetSpan(1<<20, func(Point) {})
			return z, nil
		},
		"standard":  func() (io.Reader, error) { return gzip.NewReader(bytes.NewReader(data)) },
		"klauspost": func() (io.Reader, error) { return kgzip.NewReader(bytes.NewReader(data)) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(program)))
			for b.Loop() {
				r, err := open()
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(program)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
