// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"time"
)

// A Node is a *Dir, an *Image or a *Draft.
type Node interface {
	// Attr returns the attributes as they are known here: it asks no registry.
	Attr() Attr
}

// Attr is what stat(2) shows of a node, but for its owner.
type Attr struct {
	Ino     uint64
	Mode    fs.FileMode // permissions, and fs.ModeDir
	Size    int64       // bytes; -1 if not known before the image is opened
	ModTime time.Time
	Changes bool // the attributes can change while the node stays the same
}

// inode makes an inode number that is the same after every mount, from what
// identifies the node. The first part says what kind it is.
//
// The hash is a cryptographic one: people who name images in a registry must not be able
// to find two names that go-fuse takes for one file.
func inode(parts ...string) uint64 {
	var space [512]byte
	return inodeOf(appendParts(space[:0], parts...))
}

// appendParts appends the identity that inodeOf makes a number of.
func appendParts(b []byte, parts ...string) []byte {
	for _, part := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

func inodeOf(identity []byte) uint64 {
	sum := sha256.Sum256(identity)
	// go-fuse uses the upper half of the numbers for inodes of its own, and the lowest
	// ones mean the root or nothing.
	ino := binary.BigEndian.Uint64(sum[:]) >> 1
	if ino < 16 {
		ino += 16
	}
	return ino
}
