// SPDX-License-Identifier: Apache-2.0

package inspect

import "errors"

// A container start reads the SIF header and descriptors, the beginning of the
// squashfs (the superblock and the first clusters of what is started), and its
// tables at the end.
const (
	hotHead  = 1 << 20   // if nothing is known of the file
	hotTail  = 1 << 20   // likewise
	hotFirst = 112 << 10 // of the squashfs
	hotMax   = 8 << 20   // in all
	hotMin   = 32 << 10  // header and descriptors of the usual SIF
	hotGap   = 64 << 10
)

var errNoTables = errors.New("no squashfs")

func hotRanges(p *pager) ([]Range, error) {
	head, err := p.bytes(0, min(p.size, headSize))
	if err != nil {
		return nil, err
	}
	if isTar(head) {
		return []Range{{0, hotMin}}, nil // it is read in order
	}
	base, size, err := findRoot(p, head)
	if err != nil {
		return nil, err
	}
	sb, err := readSuperblock(p, base, size)
	if err != nil {
		return nil, err
	}
	// The root directory and its inode are written last, so that of tables too
	// large to be fetched at once the end is wanted.
	end := min(sb.used, size)
	tables := max(sb.tables(), end-(hotMax-hotMin-hotFirst))
	return []Range{{0, hotMin}, {base, hotFirst}, {base + tables, end - tables}}, nil
}

// findRoot returns where the squashfs lies that a container is started from.
func findRoot(p *pager, head []byte) (base, size int64, err error) {
	if !isSIF(head) {
		off, ok := findSquashfs(head)
		if !ok {
			return 0, 0, errNoTables
		}
		return off, p.size - off, nil
	}
	img, err := loadSIF(p)
	if err != nil {
		return 0, 0, err
	}
	root, ok := rootFS(objects(img))
	if !ok || !within(root, p.size) {
		return 0, 0, errNoTables
	}
	return root.Offset(), root.Size(), nil
}

// tidy cuts ranges, which are in order, to the file and joins those that are
// close: a request costs more than the bytes between.
func tidy(ranges []Range, size int64) []Range {
	var out []Range
	var done int64 // end of the last range
	for _, r := range ranges {
		from, to := max(r.Off, done), min(r.Off+r.N, size)
		if from >= to {
			continue
		}
		if last := len(out) - 1; last >= 0 && from-done <= hotGap {
			out[last].N = to - out[last].Off
		} else {
			out = append(out, Range{from, to - from})
		}
		done = to
	}
	return out
}
