// SPDX-License-Identifier: Apache-2.0

// Package vsif lays out a container image as a SIF file that nobody has made: its
// squashfs points into the tars of the layers, which stand in the file as they are.
// Nothing is converted, and the file has the same bytes on every machine.
//
//	0        header, descriptors         a SIF as Apptainer and SingularityCE read it
//	32 KiB   oci-config.json, inspect-metadata.json; oci-manifest.json, oci-image.json, oci-sif.json,
//	         which tell how to make the file again
//	         the partition, a squashfs 4.0 without compression:
//	           superblock
//	           the files that Singularity needs in a container
//	           the tar of layer 0
//	           the tar of layer 1 …
//	           sparse files, expanded
//	           the tables: inodes, directories, owners, extended attributes
//	           room, to the end of the file
//
// Everything begins at a multiple of 4 KiB, tars and tables at one of 256 KiB; what nothing stands in are holes. The tables come
// last since the kernel wants the data before them. How large the file is follows
// from the manifest and from upper bounds of the tars ([Bound]), so that it is known
// before a layer is: a [Plan]. Where the files are follows from the headers in the tars:
// a [Tree] takes them layer by layer, and [Plan.Build] makes the pieces of the file
// that no layer has.
//
// The package does no I/O and knows no clock: descriptors and headers go in, offsets and
// tables come out. It fetches no layer, inflates nothing and verifies no digest. What it
// makes is version [Version] for ever, as files made of it are in caches: another rule is
// another version. Start at [NewPlan].
package vsif

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
)

// Version is that of the layout. It is part of the digest of such a file.
const Version = 1

// Algorithm is what that digest begins with; the rest is the SHA-256 of the manifest.
const Algorithm = "oci-sif:1"

// Digest returns the digest of the file that is made of a manifest and all that it names.
func Digest(manifest []byte) string {
	sum := sha256.Sum256(manifest)
	return Algorithm + ":" + hex.EncodeToString(sum[:])
}

// IsDigest reports whether digest is that of such a file.
func IsDigest(digest string) bool { return strings.HasPrefix(digest, Algorithm+":") }

// ErrLayer is the error for layers that cannot be shown as a file system: unpacking them
// would fail, or they are larger than what they come from says.
var ErrLayer = errors.New("these layers make no file system")
