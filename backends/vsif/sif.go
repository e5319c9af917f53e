// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"encoding/binary"
	"fmt"
)

// What stands at the begin of a SIF (https://github.com/apptainer/sif, pkg/sif/sif.go): a
// header of 128 bytes, and descriptors of 585, little-endian.
const (
	sifHeader      = 128
	sifDescriptor  = 585
	sifDescriptors = 48

	dataPartition = 0x4004
	dataJSON      = 0x4006
	firstGroup    = 0xf0000001
	squashfsType  = 1
	primarySystem = 2
)

// arches are the codes of architectures, by Go's names.
var arches = map[string]string{
	"386": "01", "amd64": "02", "arm": "03", "arm64": "04", "ppc64": "05", "ppc64le": "06", "mips": "07", "mipsle": "08",
	"mips64": "09", "mips64le": "10", "s390x": "11", "riscv64": "12", "loong64": "13",
}

// head returns the header and the descriptors. They have no times and no id, so that they
// are the same everywhere.
func (p *Plan) head(c *config, metadata, sizes int64) []byte {
	b := make([]byte, sifHeader+sifDescriptors*sifDescriptor)
	arch := arches[c.Architecture]
	if arch == "" {
		arch = "00" // unknown
	}
	le := binary.LittleEndian
	copy(b, "#!/usr/bin/env run-singularity\n")
	copy(b[32:], "SIF_MAGIC\x00")
	copy(b[42:], "01\x00")
	copy(b[45:], arch)
	le.PutUint64(b[80:], sifDescriptors-6)
	le.PutUint64(b[88:], sifDescriptors)
	le.PutUint64(b[96:], sifHeader)
	le.PutUint64(b[104:], sifDescriptors*sifDescriptor)
	le.PutUint64(b[112:], headSize)
	le.PutUint64(b[120:], uint64(p.Size-headSize)) //nolint:gosec // not negative

	object := func(id int, kind uint32, r Region, name string) []byte {
		d := b[sifHeader+(id-1)*sifDescriptor:][:sifDescriptor]
		le.PutUint32(d, kind)
		d[4] = 1
		le.PutUint32(d[5:], uint32(id)) //nolint:gosec // 1 to 6
		le.PutUint32(d[9:], firstGroup)
		le.PutUint64(d[17:], uint64(r.Offset)) //nolint:gosec // not negative
		le.PutUint64(d[25:], uint64(r.Size))   //nolint:gosec // not negative
		le.PutUint64(d[33:], uint64(r.Size))   //nolint:gosec // not negative
		copy(d[73:201], name)
		return d[201:]
	}
	object(1, dataJSON, Region{p.config.Offset, int64(len(c.raw))}, "oci-config.json")
	object(2, dataJSON, Region{p.metadata.Offset, metadata}, "inspect-metadata.json")
	object(3, dataJSON, p.manifest, "oci-manifest.json")
	object(4, dataJSON, p.image, "oci-image.json")
	object(5, dataJSON, Region{p.sizes.Offset, sizes}, sizesName)
	extra := object(6, dataPartition, p.partition, fmt.Sprintf("oci-sif-%d.squashfs", Version))
	le.PutUint32(extra, squashfsType)
	le.PutUint32(extra[4:], primarySystem)
	copy(extra[8:], arch)
	return b
}
