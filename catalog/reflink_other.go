// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package catalog

import (
	"errors"
	"os"
)

func reflink(*os.File, *os.File) error { return errors.ErrUnsupported }
