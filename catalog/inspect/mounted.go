// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/sylabs/sif/v2/pkg/sif"

	"github.com/sregfs/sregfs/backends"
)

// ErrMounted means that a file system in the image is mounted for writing, or was not
// unmounted: its journal has to be replayed before the image starts again. It is a
// backends.ErrCorrupt too.
var ErrMounted error = &refusal{"a file system in it was not unmounted", backends.ErrCorrupt}

// Fields of the superblock of ext2, ext3 and ext4, 1024 bytes into the file
// system: https://docs.kernel.org/filesystems/ext4/super.html
const (
	extSuperblock   = 1024
	extMagicAt      = 56
	extStateAt      = 58 // bit 0: unmounted in order; cleared while it is mounted without a journal
	extIncompatAt   = 96 // bit 2: the journal has to be replayed; set while it is mounted with one
	extMagic        = 0xEF53
	extValid        = 1 << 0
	extNeedsRecover = 1 << 2
)

// Unmounted reports whether the overlays of a SIF that r holds, which a container
// writes to, are in order. What is no SIF, or has none, is.
//
// Errors: ErrMounted, with what is wrong; those of r.
func Unmounted(r io.ReaderAt, size int64) error {
	p := newPager(context.Background(), r, size)
	err := guard(func() error { return unmounted(p) })
	if p.err != nil {
		return p.err
	}
	return err
}

func unmounted(p *pager) error {
	head, err := p.bytes(0, min(p.size, headSize))
	if err != nil || !isSIF(head) {
		return nil //nolint:nilerr // whether it is whole is for Complete to say
	}
	img, err := loadSIF(p)
	if err != nil {
		return nil //nolint:nilerr // likewise
	}
	for _, d := range objects(img) {
		if fs, _, _, err := d.PartitionMetadata(); err != nil || fs != sif.FsExt3 || !within(d, p.size) {
			continue
		}
		sb, err := p.bytes(d.Offset()+extSuperblock, 128)
		if err != nil || binary.LittleEndian.Uint16(sb[extMagicAt:]) != extMagic {
			continue
		}
		state, incompat := binary.LittleEndian.Uint16(sb[extStateAt:]), binary.LittleEndian.Uint32(sb[extIncompatAt:])
		if state&extValid == 0 || incompat&extNeedsRecover != 0 {
			return fmt.Errorf("%w: object %d: end the container that writes to it, or check it with e2fsck", ErrMounted, d.ID())
		}
	}
	return nil
}
