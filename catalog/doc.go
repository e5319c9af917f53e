// SPDX-License-Identifier: Apache-2.0

// Package catalog knows which images there are, on every remote, and does what
// can be done with them: list, look up, search, inspect, pull, push, add, remove.
// Both the file tree (package fsys) and the sreg command stand on it.
//
// What the remotes' listings said is kept in a [Store], so that names are shown
// at once and offline; the store may be lost at any time and is filled again.
// The bytes are in package cache. What cannot be found again (pins, collections
// made by hand) is kept in small files beside the local images.
//
// The package knows neither FUSE nor sockets nor flags.
//
// Start at [Catalog]; list.go keeps the listings, publish.go is how an image
// reaches its registry, and each verb has a file of its own.
package catalog
