// SPDX-License-Identifier: Apache-2.0

package secrecy

import "golang.org/x/sys/unix"

// Hide makes the environment and the memory of this process unreadable for other
// processes of the same user (/proc/PID/environ, ptrace), and its death leaves no
// core file: passwords and tokens are in all of them. What it starts is not hidden.
func Hide() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
