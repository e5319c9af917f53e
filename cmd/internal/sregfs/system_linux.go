// SPDX-License-Identifier: Apache-2.0

package sregfs

import "golang.org/x/sys/unix"

// forbidDumps keeps core dumps and other processes of the user from the tokens.
func forbidDumps() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// duplicate makes to another descriptor of what from is one of. There is no dup2
// on all of Linux's machines.
func duplicate(from, to int) error { return unix.Dup3(from, to, 0) }
