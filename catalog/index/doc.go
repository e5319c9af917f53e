// SPDX-License-Identifier: Apache-2.0

// Package index keeps what registries said of their images in an ordered key-value
// store: which keys there are, how their values are written, and how a million of them
// are searched.
//
// It asks no registry and does not know how old an answer may be: that is package
// catalog's. Nor does it keep anything that could not be asked for again.
//
// Begin with [Store], which catalog/badger and catalog/mem implement, and [Index], which
// reads and writes facts in one. key.go lists the keys, entry.go writes their
// values; names.go is what makes a search fast.
//
// Nothing here holds a listing in memory. One is read in pages, between which the store
// is not held, so that a reader may take an hour for it (page.go). The headers, of which
// each lookup needs one, are cached; so are all names of a remote while it is searched.
//
//	lock           guards                          order
//	Index.mu       cached headers, unsaved pairs   first; held while unsaved pairs are written
//	nameIndex.mu   the name tables                 alone
package index
