// SPDX-License-Identifier: Apache-2.0

package sifhead_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/sregfs/sregfs/backends/internal/sifhead"
)

// What is read of a real image is what its own library says of it.
func TestRead_real(t *testing.T) {
	t.Parallel()
	f, err := os.Open("../../../catalog/inspect/testdata/greet-signed.sif")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := sifhead.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	img, err := sif.LoadContainer(readOnly{f}, sif.OptLoadWithCloseOnUnload(false))
	if err != nil {
		t.Fatal(err)
	}
	want := sifhead.Head{Arch: img.PrimaryArch()}
	signatures, err := img.GetDescriptors(sif.WithDataType(sif.DataSignature))
	if err != nil {
		t.Fatal(err)
	}
	want.Signed = len(signatures) > 0
	if got != want || !want.Signed {
		t.Errorf("Read = %+v, want %+v", got, want)
	}
}

// Images that the library makes, of every architecture and file system.
func TestRead_made(t *testing.T) {
	t.Parallel()
	for _, arch := range []string{"386", "amd64", "arm", "arm64", "ppc64", "ppc64le", "mips", "mipsle", "mips64", "mips64le", "s390x", "riscv64"} {
		for _, fs := range []sif.FSType{sif.FsSquash, sif.FsEncryptedSquashfs} {
			in, err := sif.NewDescriptorInput(sif.DataPartition, bytes.NewReader([]byte("content")),
				sif.OptPartitionMetadata(fs, sif.PartPrimSys, arch))
			if err != nil {
				t.Fatal(err)
			}
			buf := sif.NewBuffer(nil)
			if _, err := sif.CreateContainer(buf, sif.OptCreateWithDescriptors(in)); err != nil {
				t.Fatal(err)
			}
			got, err := sifhead.Read(bytes.NewReader(buf.Bytes()))
			want := sifhead.Head{Arch: arch, Encrypted: fs == sif.FsEncryptedSquashfs}
			if err != nil || got != want {
				t.Errorf("Read = %+v, %v, want %+v", got, err, want)
			}
		}
	}
}

func TestRead_hostile(t *testing.T) {
	t.Parallel()
	header := make([]byte, 128)
	copy(header[32:], "SIF_MAGIC\x0001\x0004\x00")
	binary.LittleEndian.PutUint64(header[88:], 1<<62) // descriptors
	binary.LittleEndian.PutUint64(header[96:], 128)
	for name, tt := range map[string]struct {
		content []byte
		arch    string
	}{
		"empty":            {nil, ""},
		"no SIF":           {bytes.Repeat([]byte("x"), 500), ""},
		"too many":         {header, "arm64"},
		"negative offset":  {put(header, 96, 1<<63), "arm64"},
		"offset past all":  {put(put(header, 88, 48), 96, 1<<40), "arm64"},
		"offset past any":  {put(put(header, 88, 48), 96, 1<<63-1), "arm64"},
		"half of them":     {append(put(header, 88, 2), make([]byte, 600)...), "arm64"},
		"no such arch":     {append(append([]byte{}, header[:45]...), append([]byte("99"), header[47:]...)...), ""},
		"shorter than one": {header[:100], ""},
	} {
		got, err := sifhead.Read(bytes.NewReader(tt.content))
		if err != nil || got != (sifhead.Head{Arch: tt.arch}) {
			t.Errorf("%s: Read = %+v, %v, want arch %q", name, got, err, tt.arch)
		}
	}
	broken := errors.New("the disk broke")
	if _, err := sifhead.Read(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("of a broken disk: %v", err)
	}
}

func put(header []byte, at int, v uint64) []byte {
	text := bytes.Clone(header)
	binary.LittleEndian.PutUint64(text[at:], v)
	return text
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// readOnly is a file that the library can only read.
type readOnly struct{ io.ReaderAt }

func (readOnly) Write([]byte) (int, error)      { return 0, errors.ErrUnsupported }
func (readOnly) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }
func (readOnly) Truncate(int64) error           { return errors.ErrUnsupported }
