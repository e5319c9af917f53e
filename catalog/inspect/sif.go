// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/sylabs/sif/v2/pkg/sif"
)

const (
	sifHeaderSize     = 128
	sifDescriptorSize = 585
	maxDescriptors    = 4096 // images have 48
	maxObject         = 1 << 20
)

// launchLine is how every SIF begins, and a squashfs image that can be executed.
const launchLine = "#!/usr/bin/env run-singularity\n"

var sifMagic = []byte("SIF_MAGIC\x00")

func isSIF(head []byte) bool {
	return len(head) >= 42 && bytes.Equal(head[32:42], sifMagic)
}

// loadSIF reads header and descriptors. The library allocates what the header
// claims (it panics on a huge count), so the header is checked here first.
// Errors: io.ErrUnexpectedEOF if the file ends before; others if it is no SIF.
func loadSIF(p *pager) (*sif.FileImage, error) {
	head, err := p.bytes(0, sifHeaderSize)
	if err != nil {
		return nil, err
	}
	field := func(i int) int64 { return int64(binary.LittleEndian.Uint64(head[64+8*i:])) }
	total, off, length := field(3), field(4), field(5)
	switch {
	case string(head[42:45]) != "01\x00":
		return nil, fmt.Errorf("SIF version %q", head[42:45])
	case total < 1 || total > maxDescriptors:
		return nil, fmt.Errorf("%d descriptors", total)
	case off < sifHeaderSize || length < total*sifDescriptorSize || length > 2*maxDescriptors*sifDescriptorSize:
		return nil, fmt.Errorf("%d bytes of descriptors at %d", length, off)
	case off > p.size-total*sifDescriptorSize:
		return nil, io.ErrUnexpectedEOF
	}
	return sif.LoadContainer(readOnly{p}, sif.OptLoadWithCloseOnUnload(false))
}

// readOnly has the methods that the library wants to see.
type readOnly struct{ io.ReaderAt }

func (readOnly) Write([]byte) (int, error)      { return 0, errors.ErrUnsupported }
func (readOnly) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }
func (readOnly) Truncate(int64) error           { return errors.ErrUnsupported }

// objects returns the descriptors that are in use.
func objects(img *sif.FileImage) []sif.Descriptor {
	var all []sif.Descriptor
	img.WithDescriptors(func(d sif.Descriptor) bool {
		all = append(all, d)
		return false
	})
	return all
}

// within reports whether the object lies in a file of that size.
func within(d sif.Descriptor, size int64) bool {
	return d.Offset() >= 0 && d.Size() >= 0 && d.Offset() <= size && d.Size() <= size-d.Offset()
}

// objectData returns what a small object holds.
func objectData(p *pager, d sif.Descriptor) ([]byte, error) {
	if d.Size() > maxObject {
		return nil, fmt.Errorf("object %d is too large to be shown: %d bytes", d.ID(), d.Size())
	}
	return p.bytes(d.Offset(), d.Size())
}

// rootFS returns the squashfs partition that a container is started from.
func rootFS(all []sif.Descriptor) (sif.Descriptor, bool) {
	var first sif.Descriptor
	var found bool
	for _, d := range all {
		fs, part, _, err := d.PartitionMetadata()
		if err != nil || fs != sif.FsSquash {
			continue
		}
		if part == sif.PartPrimSys {
			return d, true
		}
		if !found {
			first, found = d, true
		}
	}
	return first, found
}
