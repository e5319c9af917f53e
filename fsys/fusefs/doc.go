// SPDX-License-Identifier: Apache-2.0

// Package fusefs mounts a tree (package fsys) with FUSE. Only this package knows FUSE, the
// kernel's caches and errno.
//
// Each handler converts its arguments, calls fsys, and maps the error to an errno by the
// one table in errno.go. What is decided here is what the kernel may cache: for how long a
// name or an attribute is valid (attr.go), when the pages of an image stay, when the
// kernel reads the cache's file without us (passthrough in imagenode.go), and what it is
// told to drop (notify.go).
//
// # Locks
//
//	lock             guards
//	openFiles.mu     the files that are open, and the stage of the mount (stages.go)
//	imageNode.mu     the mode of an inode and its handles
//	openedImages.mu  the nodes that were opened; taken inside imageNode.mu
//	notifier.mu      what the kernel is to be notified of; never held while it is
//	refusals.mu, backing.mu, waitContext.mu  their own fields
//
// On other systems than Linux the package builds, and [Mount] is not supported.
//
// Start at [Mount]; dirnode.go, imagenode.go and draftnode.go are the handlers.
package fusefs
