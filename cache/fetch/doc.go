// SPDX-License-Identifier: Apache-2.0

// Package fetch brings the ranges of one blob from registries into a sparse file.
//
// A [Download] knows which chunks are here and which are on their way. A fetch is one
// range on its way into the [Sink]. Each chunk under way belongs to exactly one fetch,
// which alone may write it: however many readers want it, it is sent once, and no byte
// is ever written over another. A reader starts what is missing of its range and of a
// [Window] ahead of it, and waits for the watermark of the fetch that brings its first
// missing byte: never for a whole request, and never with its own context in the
// request, so that readers who give up take nothing from others. A registry that is
// away makes it wait, for as long as the remote's timeout allows.
//
// The background of a download fetches the rest, from the last reader's place on: some
// time after the first read if the blob is still open then; at once when a reader has
// read the first MiB in sequence, or 8 MiB anywhere, or waits for the whole.
//
// What a fetch reads is one backends.Transfer, which has the slots, asks again and hedges.
// Where a source refuses the blob, the fetch goes on with the next one.
//
// Locks, in the order in which they are taken:
//
//	work.mu       ranges, fetches, background, what was learnt of failures
//	sources.mu    where the blob can be fetched; before the scheduler's
//	through.mu    ranges in memory; last
//	Window.mu     one reader's window; last
//
// The sink's Complete is called with work.mu held.
package fetch
