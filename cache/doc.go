// SPDX-License-Identifier: Apache-2.0

// Package cache holds the bytes of images on the local disk: blobs that were
// pulled, whole or in part, and the spool of files on their way to a registry.
//
// A [Cache] keeps each whole blob once, under its digest, however many names it has
// and however many readers. Before it is whole and verified, its bytes belong to the
// remote that they come from (origin): ranges are fetched when they are asked for, the
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
// # Fetching
//
// What is here is known in chunks of 256 KiB, and bytes come in flights: a flight
// is one range on its way into the sparse file (flight.go, fetch.go). Each chunk
// under way belongs to exactly one flight, which alone may write it, so however
// many readers want it, it is sent once, and no byte is ever written over another.
// A reader starts what is missing of its range and of a window ahead of it
// (demand.go) and waits for the watermark of the flight that brings its first
// missing byte: never for a whole request, and never with its own context in the
// request, so that readers who give up take nothing from others. A registry that is
// away makes it wait, for as long as the remote's timeout allows (reader, in data.go).
//
// The filler of a blob (fill.go) fetches the rest, from the last reader's place on:
// a second after the first read if the blob is still open then; at once when a
// reader has read the first MiB in sequence, or 8 MiB anywhere, or waits for the
// whole.
//
// Flights ask the scheduler of their service for slots (package sched). Demanded
// ones go first; background ones get as many as the adaptive limit says. One that has
// all but come in does not count any more: the next request travels meanwhile. While
// the body of a demanded range comes in the others hold still, 50 ms at a time at most.
//
// A request that is stuck for longer than its service ever takes (sched.Latency), is
// made a second time for what is missing (vigil.go); whichever brings a byte
// first goes on.
//
// The keeper of a blob (keeper.go) hashes what has come in without a gap, while a
// commit (commit.go) makes it durable now and then. When all is here and the digest
// matches, the reader of the last chunk gets it, the file is synced and renamed to
// the blob's name, and the blob is whole.
//
// Start at [Cache.Open] and blob.go; Spool is in spool.go.
package cache
