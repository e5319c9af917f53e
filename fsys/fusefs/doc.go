// SPDX-License-Identifier: Apache-2.0

// Package fusefs mounts a tree (package fsys) with FUSE: the only code that
// knows that FUSE, the kernel's caches and errno exist.
//
// Each handler converts its arguments, calls fsys, and turns the error into an
// errno by the one table in errno.go. What is decided here is how the kernel may
// cache: for how long a name or an attribute holds (attr.go), when the pages of
// an image stay, when the kernel reads the cache's file without us (passthrough
// in imagenode.go), and what it is told to forget (notify.go).
//
// On other systems than Linux the package builds, and [Mount] is not supported.
//
// Start at [Mount]; dirnode.go, imagenode.go and draftnode.go are the handlers.
package fusefs
