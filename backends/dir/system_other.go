// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package dir

import (
	"errors"
	"os"
)

func clone(_, _ *os.File) error { return errors.ErrUnsupported }

func reserve(*os.File, int64) error { return nil }

func (t *tree) linkFrom(_, _ string) error { return errors.ErrUnsupported }
