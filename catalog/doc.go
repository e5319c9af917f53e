// SPDX-License-Identifier: Apache-2.0

// Package catalog knows which images there are, on every remote, and does what
// can be done with them: list, look up, search, inspect, pull, push, add, remove,
// share.
// Both the file tree (package fsys) and the sreg command stand on it.
//
// What the remotes' listings said is kept in a [Store], so that names are shown
// at once and offline; the store may be lost at any time and is filled again.
// The bytes are in package cache. What cannot be found again (pins, collections
// made by hand) is kept in small files beside the local images.
//
// The package knows neither FUSE nor sockets nor flags.
//
// # When a registry is asked
//
// A listing that is younger than Options.ListTTL is not asked for again. An older
// one is shown all the same, while it is made anew behind the caller's back;
// [Catalog.Watch] tells what that changed. A single image is different: its
// bytes depend on the answer, so a lookup waits for it, for a few seconds. Only a
// registry's own "not found" makes a name vanish; one that is down, hangs or
// wants fewer requests leaves everything as it was last seen, and after the first
// such answer nobody waits for it until it is back.
//
// Each question is asked once, however many want to know, and an answer to a
// question that is older than our own push or delete does not undo that. Where
// listings tell only names, the facts of the following names are fetched ahead
// once somebody looks at one after the other, and never otherwise.
//
// A remote whose images are files of this machine is not stored at all: it is
// asked each time, and no verb about it opens [State].
//
// # A million images
//
// Nothing here holds a listing in memory. One that comes is merged with what is
// stored as it goes by, and told of as it changes (relist.go, sweep.go); one
// that is read is read in pages, between which the store is not held, so a
// reader may take an hour for it (page.go). What lookups ask for each time is
// remembered (memo.go), and so are all names while somebody searches (names.go,
// nameindex.go).
//
// # How an image is published
//
// [Catalog.Create] refuses what can be refused before a byte is copied, and
// notes which version the name means. [Catalog.Publish] lets the draft become
// durable (spool.Draft.Seal), looks whether the registry has these bytes already
// or another version than the noted one, pushes, compares what the registry says it stored, and
// only then gives the draft's file to the cache. Whatever fails before, the
// draft stays; whatever fails after, the image is published. A process that is
// killed in between finds the draft again and, pushing it once more, that the registry has it.
//
// # Where to begin
//
// At [Catalog]. list.go and refresh.go keep the listings, lookup.go and ahead.go
// answer for single images, key.go and entry.go say how they are stored;
// publish.go is how an image reaches its registry, uploads.go and queue.go who
// waits for that; each verb has a file of its own.
package catalog
