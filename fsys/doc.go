// SPDX-License-Identifier: Apache-2.0

// Package fsys is the tree that sregfs shows: what directories and files there
// are, what they are called, and what reading and writing them means.
//
//	/<remote>/<collection…>/<image>:<tag>.sif
//
// A [FS] stands on a [catalog.Catalog], which knows the images, and adds the
// shape of a file system: names that any content fits into (names.go), stable
// inode numbers (node.go), directories (lookup.go, dir.go, listing.go), images that
// are read (image.go), and files that are being written (create.go, file.go,
// publish.go). The types are in fs.go; no file calls upwards.
//
// # Writing
//
// A file that is written is a [Draft]: full random access in the local spool,
// under its name but not in the registry. It is published when the process that
// opened it closes it, so that the copying program sees an error, and only if it is a
// whole image. Until then the name means what it meant before. Files with the
// temporary names of copying tools (temporary.go) stay here until they are renamed to
// an image's name.
//
// # Locks
//
// They are taken in this order:
//
//	lock             guards
//	Draft.exclusive  publishing a draft, renaming it, its last close: one at a time, and no write meanwhile
//	FS.mu            which drafts are at which location
//	Draft.mu         all other fields of a draft; not held while bytes are sent
//
// # What it is not
//
// The package does not know FUSE, the kernel or system calls: fsys/fusefs
// adapts it. Its errors are the sentinels of the standard library, of
// backends and of errors.go; it never looks at their text.
//
// # Where to start
//
// [New], then [FS.Root] and [Dir.Lookup]. [PathOf] and [ParsePath] turn names
// of images into paths and back without a tree.
package fsys
