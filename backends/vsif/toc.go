// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"archive/tar"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Where a layer says that it has a table of contents, by which each file in it can be inflated by
// itself: eStargz (https://github.com/containerd/stargz-snapshotter, docs/estargz.md), and
// zstd:chunked (https://github.com/containers/storage, pkg/chunked/internal/minimal), whose names
// were others at first.
const (
	stargzDigest    = "containerd.io/snapshot/stargz/toc.digest"
	chunkedDigest   = "io.github.containers.zstd-chunked.manifest-checksum"
	chunkedPosition = "io.github.containers.zstd-chunked.manifest-position"
	formerDigest    = "io.containers.zstd-chunked.manifest-checksum"
	formerPosition  = "io.containers.zstd-chunked.manifest-position"
	chunkedType     = 1 // of the tables that are known
)

// Contents is where the table of contents of a layer is.
type Contents struct {
	Digest digest.Digest // of the table; of zstd:chunked as it is compressed
	Offset int64         // in the layer; -1 if the end of the layer tells
	Size   int64         // bytes compressed, if Offset is not -1
}

// TOC returns where the table of contents of a layer is, if its manifest says that it has
// one. In the region of such a layer stand its files one after
// the other, in the order of the table, each at a multiple of 512 bytes, and no headers between them:
// where those are in the tar, the table does not tell.
func TOC(layer ocispec.Descriptor) (c Contents, ok bool) {
	notes := layer.Annotations
	kind, err := Compressed(layer)
	switch {
	case err != nil:
		return c, false
	case kind == Gzip:
		c = Contents{Digest: digest.Digest(notes[stargzDigest]), Offset: -1}
		ok = told(layer) > 0
	case kind == Zstd:
		c.Digest = digest.Digest(cmp.Or(notes[chunkedDigest], notes[formerDigest]))
		var text, kind int64
		n, _ := fmt.Sscanf(cmp.Or(notes[chunkedPosition], notes[formerPosition]), "%d:%d:%d:%d", &c.Offset, &c.Size, &text, &kind)
		ok = n == 4 && kind == chunkedType && c.Offset > 0 && c.Size > 0 && c.Offset+c.Size <= layer.Size
	}
	return c, ok && c.Digest.Validate() == nil
}

// A Member is a piece of a file that can be inflated by itself.
type Member struct {
	Offset int64         // in the region of the layer
	Size   int64         // bytes
	From   int64         // where in the layer the gzip member, or the frame, begins
	To     int64         // where the next one begins that is known
	Inner  int64         // bytes of it that come before
	Digest digest.Digest // of the piece
}

// maxMember bounds the memory of who reads: tools make pieces of 4 MiB.
const maxMember = 64 << 20

// A tocEntry is an entry of a table of contents.
type tocEntry struct {
	Name        string            `json:"name"`
	Type        string            `json:"type"`
	Size        int64             `json:"size"`
	ModTime     string            `json:"modtime"`
	Link        string            `json:"linkName"`
	Mode        int64             `json:"mode"`
	Offset      int64             `json:"offset"`
	Inner       int64             `json:"innerOffset"`
	Xattrs      map[string][]byte `json:"xattrs"`
	ChunkOffset int64             `json:"chunkOffset"`
	ChunkSize   int64             `json:"chunkSize"`
	Digest      digest.Digest     `json:"digest"`
	ChunkDigest digest.Digest     `json:"chunkDigest"`
}

var tocTypes = map[string]byte{"dir": tar.TypeDir, "reg": tar.TypeReg, "symlink": tar.TypeSymlink, "hardlink": tar.TypeLink,
	"char": tar.TypeChar, "block": tar.TypeBlock, "fifo": tar.TypeFifo}

// ReadTOC reads a table of contents, whose digest was compared, of a layer that has it at an offset. It returns what
// stands in the layer, and how many bytes the files take in its region.
//
// Errors: ErrLayer for a table that no layer can have.
func ReadTOC(r io.Reader, at int64) (entries []Entry, members []Member, size int64, err error) {
	var t struct {
		Entries []tocEntry `json:"entries"`
	}
	if err := json.NewDecoder(r).Decode(&t); err != nil {
		return nil, nil, 0, fmt.Errorf("%w: its table of contents: %v", ErrLayer, err)
	}
	var file *Entry // whose pieces come
	next := int64(0)
	for i := range t.Entries {
		e := &t.Entries[i]
		if e.Type != "chunk" {
			if err := complete(file, next); err != nil {
				return nil, nil, 0, err
			}
			made, ok, err := e.entry(size)
			if err != nil {
				return nil, nil, 0, err
			}
			if file, next = nil, 0; !ok {
				continue
			}
			entries = append(entries, made)
			if made.Kind != File || made.Size == 0 {
				continue
			}
			file = &entries[len(entries)-1]
			size += (file.Size + 511) &^ 511
		}
		m, err := e.member(file, next)
		if err != nil {
			return nil, nil, 0, err
		}
		members, next = append(members, m), next+m.Size
	}
	if err := complete(file, next); err != nil {
		return nil, nil, 0, err
	}
	return entries, members, size, setEnds(members, at)
}

// complete checks that the pieces of a file were all told.
func complete(file *Entry, next int64) error {
	if file != nil && next != file.Size {
		return fmt.Errorf("%w: %q has pieces of %d bytes, and a size of %d", ErrLayer, file.Name, next, file.Size)
	}
	return nil
}

// entry returns the entry as FromHeader does.
func (e *tocEntry) entry(offset int64) (Entry, bool, error) {
	kind, ok := tocTypes[e.Type]
	if !ok {
		return Entry{}, false, fmt.Errorf("%w: %q is of the unknown type %q", ErrLayer, e.Name, e.Type)
	}
	h := tar.Header{Name: e.Name, Typeflag: kind, Linkname: e.Link, Size: e.Size, Mode: e.Mode, PAXRecords: map[string]string{}}
	if e.ModTime != "" {
		at, err := time.Parse(time.RFC3339, e.ModTime)
		if err != nil {
			return Entry{}, false, fmt.Errorf("%w: %q has the time %q", ErrLayer, e.Name, e.ModTime)
		}
		h.ModTime = at
	}
	for name, value := range e.Xattrs {
		h.PAXRecords["SCHILY.xattr."+name] = string(value)
	}
	return FromHeader(&h, offset)
}

// member returns the piece that begins at an offset of a file.
func (e *tocEntry) member(file *Entry, at int64) (Member, error) {
	if file == nil || strings.TrimSuffix(e.Name, "/") != strings.TrimSuffix(file.Name, "/") || e.ChunkOffset != at {
		return Member{}, fmt.Errorf("%w: a piece of %q that does not belong there", ErrLayer, e.Name)
	}
	m := Member{Offset: file.Offset + at, Size: cmp.Or(e.ChunkSize, file.Size-at), From: e.Offset, Inner: e.Inner, Digest: cmp.Or(e.ChunkDigest, e.Digest)}
	if m.Size <= 0 || m.Size > file.Size-at || m.Inner < 0 || m.Inner+m.Size > maxMember || m.From < 0 || m.Digest.Validate() != nil {
		return Member{}, fmt.Errorf("%w: a piece of %d bytes of %q", ErrLayer, m.Size, e.Name)
	}
	return m, nil
}

// setEnds finds where each member ends: where another one begins, or the table does.
func setEnds(members []Member, at int64) error {
	begins := []int64{at}
	for _, m := range members {
		begins = append(begins, m.From)
	}
	slices.Sort(begins)
	for i := range members {
		m := &members[i]
		n, _ := slices.BinarySearch(begins, m.From+1)
		if n == len(begins) || begins[n]-m.From > maxMember {
			return fmt.Errorf("%w: a piece that begins at byte %d of the layer", ErrLayer, m.From)
		}
		m.To = begins[n]
	}
	return nil
}
