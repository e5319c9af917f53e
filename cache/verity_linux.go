// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sregfs/sregfs/backends/disk"
)

const verityBlock = 4096 // what all filesystems with fs-verity take

// enableVerity makes f immutable and checked by the kernel, which reads all of it
// now. Errors: errors.ErrUnsupported where the kernel or the filesystem has no
// fs-verity; those of the local disk.
func enableVerity(f *os.File) error {
	arg := unix.FsverityEnableArg{Version: 1, Hash_algorithm: unix.FS_VERITY_HASH_ALG_SHA256, Block_size: verityBlock}
	err := verityIoctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg))
	if errors.Is(err, syscall.EEXIST) {
		return nil // it was on already
	}
	return err
}

// measureVerity returns the kernel's hash of f, which is not that of its bytes
// alone. Errors: any means that fs-verity is off.
func measureVerity(f *os.File) (string, error) {
	var arg struct {
		unix.FsverityDigest
		sum [64]byte
	}
	arg.Size = uint16(len(arg.sum))
	if err := verityIoctl(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d:%s", arg.Algorithm, hex.EncodeToString(arg.sum[:min(int(arg.Size), len(arg.sum))])), nil
}

func verityIoctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	err := disk.Control(f, func(fd int) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	})
	if errors.Is(err, syscall.ENOTTY) {
		return fmt.Errorf("%w: %v", errors.ErrUnsupported, err)
	}
	return err
}
