// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A newFile is a file that is being written. It has no name yet, or one that is no
// image's. Without a name it vanishes with the process, however that ends.
type newFile struct {
	*os.File
	dir  string
	name string // "" if it has none
}

// newCopy makes a file in dir.
func newCopy(dir string) (*newFile, error) {
	if f, err := unnamedFile(dir); err == nil {
		return &newFile{File: f, dir: dir}, nil
	}
	f, err := os.CreateTemp(dir, ".sreg-*.part")
	if err != nil {
		return nil, err
	}
	return &newFile{File: f, dir: dir, name: f.Name()}, nil
}

// drop closes the file, and removes it unless it has got its name.
func (n *newFile) drop() {
	_ = n.Close() // it was synced
	if n.name != "" {
		_ = os.Remove(n.name)
	}
}

// become gives the file its name. Without replace it never replaces another file, not even
// one that was made a moment ago. Errors: fs.ErrExist; those of the local disk.
func (n *newFile) become(to string, replace bool) error {
	if !replace {
		err := n.link(to)
		if err == nil || errors.Is(err, fs.ErrExist) {
			return err
		}
		// Not all file systems have hard links: look instead.
		if _, err := os.Lstat(to); err == nil {
			return fs.ErrExist
		}
	}
	if n.name == "" {
		name := filepath.Join(n.dir, fmt.Sprintf(".sreg-%08x.part", rand.Uint32()))
		if err := n.link(name); err != nil {
			return err
		}
		n.name = name
	}
	if err := os.Rename(n.name, to); err != nil {
		return err
	}
	n.name = ""
	return nil
}

func (n *newFile) link(to string) error {
	if n.name == "" {
		return nameFile(n.File, to)
	}
	return os.Link(n.name, to)
}
