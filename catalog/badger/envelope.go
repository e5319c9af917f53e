// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"encoding/binary"
	"hash/crc32"
)

// The first byte of each of our keys in Badger, which keeps them clear of the
// names it reserves for itself and allows the empty key.
const keySpace = 'k'

// What stands before each value: a version, and the CRC-32C over version, key
// and value. With the key in it, a value that turns up under another key is as wrong
// as one with a flipped bit.
const (
	version    = 1
	headerSize = 1 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// spaced returns the key as Badger has it.
func spaced(key []byte) []byte {
	k := make([]byte, 1, 1+len(key))
	k[0] = keySpace
	return append(k, key...)
}

// entry returns the pair as Badger stores it: one allocation for both.
func entry(key, value []byte) (k, v []byte) {
	n := 1 + len(key)
	buf := make([]byte, n+headerSize+len(value))
	k, v = buf[:n:n], buf[n:]
	k[0] = keySpace
	copy(k[1:], key)
	v[0] = version
	copy(v[headerSize:], value)
	binary.LittleEndian.PutUint32(v[1:], checksum(key, value))
	return k, v
}

// content returns the value within v, and whether it is the one that was
// stored under key.
func content(key, v []byte) ([]byte, bool) {
	if len(v) < headerSize || v[0] != version {
		return nil, false
	}
	value := v[headerSize:]
	return value, binary.LittleEndian.Uint32(v[1:]) == checksum(key, value)
}

func checksum(key, value []byte) uint32 {
	sum := crc32.Update(version, castagnoli, key)
	return crc32.Update(sum, castagnoli, value)
}
