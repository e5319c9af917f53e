// SPDX-License-Identifier: Apache-2.0

// Package cache holds the bytes of images on the local disk: blobs that were
// pulled, whole or in part, and the spool of files on their way to a registry.
//
// A [Cache] keeps each blob once, under its digest, however many names it has
// and however many readers: ranges are fetched when they are asked for, the
// rest is filled in the background, and what is on disk survives a crash. Files
// are the truth; the [Index] only remembers what would take long to find again.
//
// A [Spool] keeps copied-in files durable until they are published.
//
// The package does not know what an image is, nor which names there are: it
// fetches through a [backends.Client] and is told what to keep. Its errors never
// wrap fs.ErrNotExist from a missing file of its own, because that would read as
// "no such image".
//
// Start at [Cache.Open] and blob.go; Spool is in spool.go.
package cache
