// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sregfs/sregfs/backends/disk"
)

// WriteSecret replaces the file path, or makes it, with mode 0600: whoever reads
// it, and whatever breaks off, there is all of the old text or all of the new.
func WriteSecret(path string, text []byte) error {
	// Made with mode 0600, under a name at which nobody can have laid a link.
	if err := disk.Replace(path, text, disk.Replacement{Perm: 0o600}); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// RemoveSecret removes what WriteSecret has written, and what it may have left
// when it was killed.
//
// Errors: fs.ErrNotExist if there is no such file.
func RemoveSecret(path string) error {
	err := os.Remove(path)
	left, readErr := os.ReadDir(filepath.Dir(path))
	if errors.Is(readErr, fs.ErrNotExist) {
		return err
	}
	errs := []error{err, readErr}
	for _, e := range left {
		random, ok := strings.CutPrefix(e.Name(), disk.TemporaryPrefix(path))
		if ok && random != "" && strings.Trim(random, "0123456789") == "" {
			errs = append(errs, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return errors.Join(append(errs, disk.SyncDir(filepath.Dir(path)))...)
}
