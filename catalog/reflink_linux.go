// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"os"

	"golang.org/x/sys/unix"
)

// reflink makes dst share the blocks of src (ioctl FICLONE).
func reflink(dst, src *os.File) error {
	return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
}
