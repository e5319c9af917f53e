// SPDX-License-Identifier: Apache-2.0

// Package verbs is what the sreg command does to images: list and search them, pull,
// push, add, warm, pin, inspect, share and remove them, and look after the cache. A verb
// takes URIs as a person writes them.
//
// It keeps no facts of its own. It asks package catalog what is on which
// remote, and publishes through catalog/uploads. It knows neither sockets nor flags:
// catalog/control carries the verbs to another process, and cmd prints what they return.
//
// Begin with [Verbs], whose methods are in a file each: resolve.go says which image a URI
// means, images.go looks for images, pull.go and push.go move them, cached.go
// is about what is in the cache.
//
// A verb about a remote whose images are files of this machine never opens the local
// state, which a running mount may have locked.
package verbs
