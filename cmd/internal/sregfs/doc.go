// SPDX-License-Identifier: Apache-2.0

// Package sregfs is the sregfs command: it mounts the tree, in the background or
// in the foreground, and ends cleanly.
//
// It is thin: root.go reads the flags, options.go the -o of mount(8), background.go
// starts the process that stays, serve.go puts the mount together and takes it
// down. Only [Main] reads the environment.
package sregfs
