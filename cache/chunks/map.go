// SPDX-License-Identifier: Apache-2.0

package chunks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// A File is what chunks are of. Name tells it from others beside which chunks are
// noted, Digest is the one that all of it must have ("" if the service keeps none).
type File struct {
	Name   string
	Digest string
	Size   int64 // bytes
}

// A Map is the record beside a blob's file: what of it can be trusted. It is
// replaced as a whole, and only after the data it speaks of was synced.
type Map struct {
	File
	Have Set // chunks that are on stable storage

	// Hashed bytes from the start went into the hash whose state is HashState, so
	// that a large blob need not be read again after a restart.
	Hashed    int64
	HashState []byte

	// Verified is the modification time (Unix nanoseconds) of the whole file when
	// its digest matched; 0 if it did not yet.
	Verified int64
	// Verity is the kernel's hash of the whole file, if fs-verity is on for it: as
	// long as that is the same, the bytes are.
	Verity string
}

const (
	// TmpSuffix is that of a file that is being written, beside the one that it replaces.
	TmpSuffix = ".tmp"

	fileMode   = 0o600
	mapMagic   = "SREGMAP3"
	maxMapFile = 64 << 20 // four times that of the largest image: anything longer is no map
)

var (
	errMap     = errors.New("damaged chunk map")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// encode returns the file: magic, CRC-32C of the rest, then the fields, all
// little-endian, strings with a length of two bytes.
func (m *Map) encode() []byte {
	b := append([]byte(mapMagic), 0, 0, 0, 0)
	for _, n := range []int64{Size, m.Size, m.Hashed, m.Verified} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	for _, s := range [][]byte{[]byte(m.Name), []byte(m.Digest), m.HashState, []byte(m.Verity)} {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	b = m.Have.appendTo(b)
	binary.LittleEndian.PutUint32(b[len(mapMagic):], crc32.Checksum(b[len(mapMagic)+4:], castagnoli))
	return b
}

// decode reads what encode wrote. Errors: errMap with what is wrong.
func decode(b []byte) (*Map, error) {
	bad := func(why string) (*Map, error) { return nil, fmt.Errorf("%w: %s", errMap, why) }
	body, ok := bytes.CutPrefix(b, []byte(mapMagic))
	if !ok || len(body) < 4+4*8 {
		return bad("no header")
	}
	sum, body := binary.LittleEndian.Uint32(body), body[4:]
	if crc32.Checksum(body, castagnoli) != sum {
		return bad("checksum does not match")
	}
	var nums [4]int64
	for i := range nums {
		nums[i], body = int64(binary.LittleEndian.Uint64(body)), body[8:]
	}
	var fields [4][]byte
	for i := range fields {
		if len(body) < 2 || len(body) < 2+int(binary.LittleEndian.Uint16(body)) {
			return bad("cut off")
		}
		n := 2 + int(binary.LittleEndian.Uint16(body))
		fields[i], body = body[2:n], body[n:]
	}
	m := &Map{File: File{Name: string(fields[0]), Digest: string(fields[1]), Size: nums[1]},
		Hashed: nums[2], HashState: fields[2], Verified: nums[3], Verity: string(fields[3])}
	if nums[0] != Size || m.Size < 0 || m.Hashed < 0 || m.Hashed > m.Size || m.Size > backends.MaxSize {
		return bad("impossible numbers")
	}
	if m.Have, ok = parseSet(body, Count(m.Size)); !ok {
		return bad("impossible Set")
	}
	return m, nil
}

// ReadMap reads a map file. Errors: any means that there is no map.
func ReadMap(r io.Reader) (*Map, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxMapFile))
	if err != nil {
		return nil, err
	}
	return decode(b)
}

// Write replaces the map file at path. When it returns nil the bits are on
// stable storage; a crash before that leaves the former map, whose bits are a
// subset.
func (m *Map) Write(path string) error {
	return disk.Replace(path, m.encode(), disk.Replacement{Safety: disk.OldOrNew, Suffix: TmpSuffix})
}
