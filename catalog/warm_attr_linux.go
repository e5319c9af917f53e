// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"os"

	"golang.org/x/sys/unix"
)

// attr returns an extended attribute, "" if there is none.
func attr(f *os.File, name string) string {
	buf := make([]byte, 256)
	n, err := unix.Fgetxattr(int(f.Fd()), name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func setAttr(f *os.File, name, value string) error {
	return unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0)
}
