// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package secrecy

import "golang.org/x/sys/unix"

// Hide keeps passwords and tokens out of core files. On this system it hides nothing
// from other processes.
func Hide() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }
