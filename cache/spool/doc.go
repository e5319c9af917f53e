// SPDX-License-Identifier: Apache-2.0

// Package spool keeps files durable on the local disk while they are copied in, and
// until their registry has them.
//
// A [Draft] is one such file, with full random access. Its journal, a small file beside
// the data, says where it goes and how far it has come, so that a crash loses nothing
// that its writer was told is safe. The package does not know what an image is, nor how to
// publish one: its caller does.
//
// Its errors never wrap fs.ErrNotExist from a missing file of its own, because that
// would read as "no such image".
//
// Start at [Open] and draft.go.
//
// # Locks
//
// They are taken in this order:
//
//	lock            guards
//	entry.sealing   one seal of a draft at a time
//	content.mu      the content of a draft, what is counted of it, and whether it is on its way
//	journal.mu      the record of a draft, in memory and in its journal
//	Spool.mu        which drafts there are, and how often each is open
//	dataFile.mu     the open data file of a draft
//	headroom.mu     how much may be written before the disk is asked again
package spool
