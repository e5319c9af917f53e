// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// A chunkMap is the record beside a blob's file: what of it can be trusted. It is
// replaced as a whole, and only after the data it speaks of was synced.
type chunkMap struct {
	key    Key
	digest string // of the image, "" if the service keeps none
	size   int64  // bytes
	have   bitmap // chunks that are on stable storage

	// hashed bytes from the start went into the hash whose state is this, so
	// that a large blob need not be read again after a restart.
	hashed int64
	state  []byte

	// verified is the modification time (Unix nanoseconds) of the whole file when
	// its digest matched; 0 if it did not yet.
	verified int64
	// verity is the kernel's hash of the whole file, if fs-verity is on for it: as
	// long as that is the same, the bytes are.
	verity string
}

const (
	mapMagic   = "SREGMAP3"
	maxMapFile = 64 << 20 // four times that of the largest image: anything longer is no map
)

var (
	errMap     = errors.New("damaged chunk map")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// encode returns the file: magic, CRC-32C of the rest, then the fields, all
// little-endian, strings with a length of two bytes.
func (m *chunkMap) encode() []byte {
	b := append([]byte(mapMagic), 0, 0, 0, 0)
	for _, n := range []int64{chunkSize, m.size, m.hashed, m.verified} {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	for _, s := range [][]byte{[]byte(m.key), []byte(m.digest), m.state, []byte(m.verity)} {
		b = binary.LittleEndian.AppendUint16(b, uint16(len(s)))
		b = append(b, s...)
	}
	b = m.have.appendTo(b)
	binary.LittleEndian.PutUint32(b[len(mapMagic):], crc32.Checksum(b[len(mapMagic)+4:], castagnoli))
	return b
}

// decodeMap reads what encode wrote. Errors: errMap with what is wrong.
func decodeMap(b []byte) (*chunkMap, error) {
	bad := func(why string) (*chunkMap, error) { return nil, fmt.Errorf("%w: %s", errMap, why) }
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
	m := &chunkMap{size: nums[1], hashed: nums[2], verified: nums[3],
		key: Key(fields[0]), digest: string(fields[1]), state: fields[2], verity: string(fields[3])}
	if nums[0] != chunkSize || m.size < 0 || m.hashed < 0 || m.hashed > m.size || m.size > backends.MaxSize {
		return bad("impossible numbers")
	}
	if m.have, ok = parseBitmap(body, chunks(m.size)); !ok {
		return bad("impossible bitmap")
	}
	return m, nil
}

// readMap reads the map file at path. Errors: any means that there is no map.
func readMap(path string) (*chunkMap, error) {
	f, _, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mapFrom(f)
}

func mapFrom(r io.Reader) (*chunkMap, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxMapFile))
	if err != nil {
		return nil, err
	}
	return decodeMap(b)
}

// write replaces the map file at path. When it returns nil the bits are on
// stable storage; a crash before that leaves the former map, whose bits are a
// subset.
func (m *chunkMap) write(path string) error {
	return disk.Replace(path, m.encode(), disk.Replacement{Safety: disk.OldOrNew, Suffix: tmpSuffix})
}
