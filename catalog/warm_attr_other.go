// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package catalog

import (
	"errors"
	"os"
)

func attr(*os.File, string) string { return "" }

func setAttr(*os.File, string, string) error { return errors.ErrUnsupported }
