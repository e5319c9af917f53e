// SPDX-License-Identifier: Apache-2.0

// Package catalog knows which images there are, on every remote: it lists
// collections, looks up names, opens images, and says what changed. Package fsys shows
// that as a tree. What is done to images is in catalog/uploads and catalog/verbs, which
// stand on this package and tell it what they did.
//
// Listings are kept in an [index.Index], so that names are shown at once and offline; it
// may be lost at any time and is filled again. The bytes are in package cache. What
// could not be asked for again (pins, collections made by hand) is in catalog/records.
//
// The package knows neither FUSE nor sockets nor URIs.
//
// # When a registry is asked
//
// A listing that is younger than Options.ListTTL is not asked for again. An older
// one is still shown, while it is made again in the background;
// [Catalog.Watch] tells what that changed. A single image is different: its
// bytes depend on the answer, so a lookup waits for it, for a few seconds. Only a
// registry's own "not found" makes a name vanish; one that is down, hangs or
// wants fewer requests leaves everything as it was last seen, and after the first
// such answer nobody waits for it until it is back.
//
// Each question is asked once, however many callers wait for the answer. An answer to a
// question that is older than our own push or delete does not undo that. Where
// listings tell only names, the facts of the following names are prefetched
// once somebody looks at one after the other, and never otherwise.
//
// A remote whose images are files of this machine is not stored at all: it is
// asked each time, without opening [State].
//
// # A million images
//
// Nothing here holds a listing in memory. One that comes from a registry is merged with
// the stored one as it arrives, and its changes are told as they are found.
//
// # Where to begin
//
// At [Catalog], which is made of layers. Each calls only those below it:
//
//	changes    changes.go: make and remove collections; what was published and deleted
//	blobs      blob.go: open an image, and learn from its first bytes
//	images     lookup.go, ask.go, prefetch.go: what a name means
//	listings   list.go, refresh.go, relist.go, vanish.go, watch.go: what collections hold
//	core       core.go: remotes, local state, what is remembered for a short while
//
// # Locks
//
//	lock                guards                                       order
//	Catalog.ending      that it is closed once                       first
//	core.opening        opening and closing the local state          after ending
//	core.locks          the stored entries of a collection           before trees; held while they are written
//	core.trees          which collections are in which               after one of locks; held while they are written
//	remotes.mu          changes of the list of remotes               alone
//	watchers.mu         the functions that are called with events    alone; not held while they are called
//	tasks.mu            the work in the background                   alone
//	health.mu, negativeCache.mu, failures.mu, recentWrites.mu, prefetcher.mu    what each remembers; last, alone
package catalog
