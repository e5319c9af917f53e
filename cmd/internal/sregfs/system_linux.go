// SPDX-License-Identifier: Apache-2.0

package sregfs

import "golang.org/x/sys/unix"

// duplicate makes to another descriptor of what from is one of. There is no dup2
// on all of Linux's machines.
func duplicate(from, to int) error { return unix.Dup3(from, to, 0) }
