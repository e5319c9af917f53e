// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package disk

import (
	"errors"
	"os"
)

// Clone is not possible here.
func Clone(_, _ *os.File) error { return errors.ErrUnsupported }

// Allocate is not possible here.
func Allocate(_ *os.File, _, _ int64, _ bool) error { return errors.ErrUnsupported }
