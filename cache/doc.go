// SPDX-License-Identifier: Apache-2.0

// Package cache holds the bytes of images on the local disk: blobs that were
// pulled, whole or in part.
//
// A [Cache] keeps each whole blob once, under its digest, however many names it has
// and however many readers. Before it is whole and verified, its bytes belong to the
// remote that they come from (origin): ranges are fetched when they are asked for, the
// rest is filled in the background, and what is on disk survives a crash. Files
// are the truth; the [Index] only remembers what would take long to find again.
//
// The package does not know what an image is, nor which names there are: it
// fetches through a [backends.Client] and is told what to keep. Its errors never
// wrap fs.ErrNotExist from a missing file of its own, because that would read as
// "no such image".
//
// # Fetching
//
// What is here is known in chunks of 256 KiB (package chunks). A partial blob has one
// download (package fetch), which brings what readers ask for and the rest in the
// background, as the scheduler of its service allows (package sched).
//
// The committer of a blob hashes what has come in without a gap, while a commit makes
// it durable now and then. When all is here and the digest
// matches, the reader of the last chunk gets it, the file is synced and renamed to
// the blob's name, and the blob is whole.
//
// # Types and their locks
//
// In the order in which the locks are taken:
//
//	lock            guards                                                          owner
//	evictor.mu      held while evicting; before family.busy, which evicting never waits for
//	family.busy     the files of one key: opening, replacing, removing them         table
//	stored.disk     the names of one blob's files, and its map                      data
//	item.mu         what is known of one blob from one origin; no two at once       family
//	fetch, sched    see those packages
//	stored.mu       which chunks were written since the map was                     data
//	check.mu        whether the digest matched                                      data
//	data.mu         how many use an open blob, and why it is dead                   item
//	table.mu        which blobs the cache knows                                     Cache
//	records.mu      what the index is to remember                                   Cache
//	watchers.mu     callbacks for changes                                           Cache
//	workers.mu      whether goroutines may be started                               Cache
//	idleBlobs.mu    the files that stay open for a moment; last                     table
//	streams.mu      downloads of unknown size; Blob.swap: taken alone
//
// Start at [Cache.Open] and blob.go. Files on their way to a registry are in package
// spool.
package cache
