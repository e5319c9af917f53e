// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// WriteSecret replaces the file path, or makes it, with mode 0600: whoever reads
// it, and whatever breaks off, there is all of the old text or all of the new.
func WriteSecret(path string, text []byte) (err error) {
	// Made with mode 0600, under a name at which nobody can have laid a link.
	tmp, err := os.CreateTemp(filepath.Dir(path), temporaryPrefix(path)+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
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
		random, ok := strings.CutPrefix(e.Name(), temporaryPrefix(path))
		if ok && random != "" && strings.Trim(random, "0123456789") == "" {
			errs = append(errs, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return errors.Join(append(errs, syncDir(filepath.Dir(path)))...)
}

// temporaryPrefix is how the name begins under which path is written; digits follow.
func temporaryPrefix(path string) string { return "." + filepath.Base(path) + "-" }

// syncDir makes what was renamed or removed in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
