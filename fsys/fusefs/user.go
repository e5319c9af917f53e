// SPDX-License-Identifier: Apache-2.0

package fusefs

// A User is an open file of a mount, and who opened it.
type User struct {
	Name    string // below the mount point
	PID     int    // of the process that opened it; 0 if it is not known here
	Program string // its name; "" if it has ended
	Writing bool
}
