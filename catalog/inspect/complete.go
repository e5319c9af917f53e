// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sylabs/sif/v2/pkg/sif"
)

func complete(p *pager) (string, error) {
	head, err := p.bytes(0, min(p.size, headSize))
	if err != nil {
		return "", incomplete("its first bytes cannot be read: %v", err)
	}
	if isSIF(head) {
		return "sif", completeSIF(p)
	}
	if off, ok := findSquashfs(head); ok {
		return "simg", completeSquashfs(p, off, p.size-off)
	}
	if isStump(head) {
		return "", incomplete("it ends within its header")
	}
	return "", fmt.Errorf("%w%s", ErrNotImage, what(head))
}

func incomplete(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrIncomplete}, args...)...)
}

// isStump reports whether a file is too short to tell, but could become a SIF.
func isStump(head []byte) bool {
	line := launchLine[:min(len(launchLine), len(head))]
	return 0 < len(head) && len(head) < sifHeaderSize && strings.HasPrefix(string(head), line)
}

// what says what a refused file is, and what to do about it.
func what(head []byte) string {
	switch {
	case len(head) == 0:
		return ": it is empty"
	case isGzip(head):
		return ": it is compressed with gzip: unpack it first"
	case isExt3(head):
		return ": it is an ext3 file system: convert it with \"apptainer build NEW.sif OLD.img\""
	case isTar(head):
		return ": it is a tar archive: if it holds a Docker or OCI image, convert it with \"apptainer build NEW.sif oci-archive:OLD.tar\""
	}
	return ""
}

func completeSIF(p *pager) error {
	img, err := loadSIF(p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return incomplete("it ends before its descriptors")
	}
	if err != nil {
		return fmt.Errorf("%w: %v", ErrNotImage, err)
	}
	all := objects(img)
	if len(all) == 0 {
		return incomplete("it has no objects yet")
	}
	for _, d := range all {
		if !within(d, p.size) {
			return incomplete("object %d (%s) is %d bytes at %d, but the file has %d",
				d.ID(), d.DataType(), d.Size(), d.Offset(), p.size)
		}
		fs, _, _, err := d.PartitionMetadata()
		if err != nil || fs != sif.FsSquash {
			continue
		}
		if err := completeSquashfs(p, d.Offset(), d.Size()); err != nil {
			return fmt.Errorf("object %d: %w", d.ID(), err)
		}
	}
	return nil
}

// completeSquashfs checks a file system at base, for which there are size bytes.
func completeSquashfs(p *pager, base, size int64) error {
	sb, err := readSuperblock(p, base, size)
	if err != nil {
		return incomplete("squashfs: %v", err)
	}
	if sb.used > size {
		return incomplete("squashfs has %d bytes, of which %d are here", sb.used, size)
	}
	// A file that was given its size before its bytes arrived holds zeros at the
	// end, where the list of the id table's blocks is: each is the offset of a
	// block before it.
	list, err := p.bytes(base+sb.idTable, 8)
	if err != nil {
		return incomplete("squashfs: id table: %v", err)
	}
	if at := binary.LittleEndian.Uint64(list); at < superblockSize || at >= uint64(sb.idTable) {
		return incomplete("squashfs has no id table at %d", sb.idTable)
	}
	return nil
}

// headSize is what must be read to know a format: an ext3 superblock ends there.
const headSize = 2048

// findSquashfs returns where a bare squashfs begins: at 0, or after a launch line.
func findSquashfs(head []byte) (int64, bool) {
	if bytes.HasPrefix(head, squashMagic) {
		return 0, true
	}
	if line, rest, ok := bytes.Cut(head, []byte("\n")); ok && bytes.HasPrefix(head, []byte("#!")) &&
		bytes.HasPrefix(rest, squashMagic) {
		return int64(len(line)) + 1, true
	}
	return 0, false
}

func isGzip(head []byte) bool { return bytes.HasPrefix(head, []byte{0x1f, 0x8b}) }

// isExt3 looks at the superblock 1024 bytes in, whose magic is 56 bytes further.
func isExt3(head []byte) bool {
	return len(head) == headSize && binary.LittleEndian.Uint16(head[1024+56:]) == 0xEF53
}
