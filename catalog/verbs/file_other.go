// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package verbs

import (
	"errors"
	"os"
)

func unnamedFile(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func nameFile(*os.File, string) error { return errors.ErrUnsupported }

func attr(*os.File, string) string { return "" }

func setAttr(*os.File, string, string) error { return errors.ErrUnsupported }
