// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package sregfs

import "golang.org/x/sys/unix"

// duplicate makes to another descriptor of what from is one of.
func duplicate(from, to int) error { return unix.Dup2(from, to) }
