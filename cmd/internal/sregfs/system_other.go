// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package sregfs

import "golang.org/x/sys/unix"

// forbidDumps keeps core dumps from the tokens.
func forbidDumps() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// duplicate makes to another descriptor of what from is one of.
func duplicate(from, to int) error { return unix.Dup2(from, to) }
