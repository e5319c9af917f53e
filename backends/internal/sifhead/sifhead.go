// SPDX-License-Identifier: Apache-2.0

// Package sifhead reads from the beginning of a SIF file the few facts that a
// registry wants to be told with it. It trusts nothing in there and is no
// reader of images: that is catalog/inspect. Start at [Read].
//
// The layout is that of https://github.com/sylabs/sif, pkg/sif/sif.go: a header of
// 128 bytes, and descriptors of 585 bytes each, all little-endian.
package sifhead

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/sregfs/sregfs/backends"
)

// A Head is what the header and the descriptors of a SIF say. The zero value is
// that of a file which is none.
type Head struct {
	Arch      string // in Go's spelling; "" if it is not said
	Signed    bool
	Encrypted bool
}

const (
	headerSize     = 128
	descriptorSize = 585
	maxDescriptors = 4096

	dataPartition = 0x4004
	dataSignature = 0x4005
	fsEncrypted   = 5 // an encrypted squashfs
	primarySystem = 2
)

// archs are the codes of a header.
var archs = map[string]string{
	"01": "386", "02": "amd64", "03": "arm", "04": "arm64", "05": "ppc64", "06": "ppc64le", "07": "mips", "08": "mipsle",
	"09": "mips64", "10": "mips64le", "11": "s390x", "12": "riscv64", "13": "loong64",
}

// Read reads the head of a file of any kind. Of a SIF whose descriptors make no
// sense only the architecture is told.
// Errors: those of r, if it cannot be read.
func Read(r io.ReaderAt) (Head, error) {
	var header [headerSize]byte
	if _, err := r.ReadAt(header[:], 0); err != nil {
		return Head{}, notEOF(err)
	}
	if !bytes.HasPrefix(header[32:], []byte("SIF_MAGIC\x00")) {
		return Head{}, nil
	}
	head := Head{Arch: archs[string(header[45:47])]}
	count := binary.LittleEndian.Uint64(header[88:])
	offset := int64(binary.LittleEndian.Uint64(header[96:]))
	if count > maxDescriptors || offset < headerSize || offset > backends.MaxSize {
		return head, nil
	}
	descriptors := make([]byte, int(count)*descriptorSize)
	n, err := r.ReadAt(descriptors, offset)
	if err := notEOF(err); err != nil {
		return Head{}, err
	}
	for d := descriptors[:n]; len(d) >= descriptorSize; d = d[descriptorSize:] {
		if d[4] == 0 { // not in use
			continue
		}
		switch binary.LittleEndian.Uint32(d) {
		case dataSignature:
			head.Signed = true
		case dataPartition:
			extra := d[201:]
			if binary.LittleEndian.Uint32(extra[4:]) == primarySystem {
				head.Encrypted = binary.LittleEndian.Uint32(extra) == fsEncrypted
			}
		}
	}
	return head, nil
}

// notEOF is nil for the end of a file, which a shorter one has.
func notEOF(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("head of the image: %w", err)
}
