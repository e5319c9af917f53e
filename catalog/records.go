// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/cache"
)

// records are what cannot be found again: a small JSON file of pins, replaced as a
// whole, and the collections made by hand. Another process may have written them
// since: a change reads what is new first. The zero value keeps them in memory.
type records struct {
	dir  string
	made madeCollections

	mu     sync.Mutex // guards the fields below
	loaded bool
	pins   []pin
}

// A pin keeps a blob from eviction.
type pin struct {
	Key cache.Key `json:"key"`
	URI string    `json:"uri"` // by which it was pinned; for people
}

// maxRecords bounds one of the files in bytes.
const maxRecords = 64 << 20

const (
	pinsFile        = "pins.json"
	collectionsFile = "collections.json"
)

// load reads the pins. A damaged file counts as empty, but is kept beside.
func (r *records) load() error {
	if r.dir == "" {
		return nil
	}
	pins, err := readJSON[[]pin](filepath.Join(r.dir, pinsFile))
	if err != nil {
		return err
	}
	r.pins, r.loaded = pins, true
	return nil
}

func readJSON[T any](path string) (v T, err error) {
	text, err := backends.ReadRegular(path, backends.NoFollow, maxRecords)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil {
		return v, fmt.Errorf("read %s: %v", path, err)
	}
	if json.Unmarshal(text, &v) == nil {
		return v, nil
	}
	var zero T
	if err := os.Rename(path, path+".damaged"); err != nil {
		return zero, fmt.Errorf("%s is damaged and cannot be moved aside: %v", path, err)
	}
	return zero, nil
}

// change lets f change what the file holds now and writes it back.
func (r *records) change(f func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return err
	}
	pins := slices.Clone(r.pins)
	f()
	if r.dir == "" {
		return nil
	}
	if !slices.Equal(pins, r.pins) {
		if err := writeJSON(r.dir, pinsFile, r.pins); err != nil {
			r.pins = pins
			return err
		}
	}
	return nil
}

// read calls f with the records loaded.
func (r *records) read(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		if err := r.load(); err != nil {
			return // nothing is known then; a change reports it
		}
	}
	f()
}

// writeJSON replaces a file so that either the old or the new one is there after
// a power loss.
func writeJSON(dir, name string, v any) (err error) {
	defer func() {
		if err != nil {
			err = diskError("write "+filepath.Join(dir, name), err)
		}
	}()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	// The store may be a group's: its umask says who else reads and writes this.
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return disk.Replace(filepath.Join(dir, name), append(text, '\n'), disk.Replacement{Perm: 0o666})
}

// diskError says what was done on the disk of this machine. Of the cause only
// what errno tells passes through: a file of ours that is missing must not read
// as "no such image".
func diskError(what string, err error) error {
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return fmt.Errorf("%s: %v", what, err)
}

func (r *records) pinned() []cache.Key {
	var keys []cache.Key
	r.read(func() {
		for _, p := range r.pins {
			keys = append(keys, p.Key)
		}
	})
	return keys
}

func (r *records) pin(p pin) error {
	return r.change(func() {
		if !slices.ContainsFunc(r.pins, func(o pin) bool { return o.Key == p.Key }) {
			r.pins = append(r.pins, p)
		}
	})
}

func (r *records) unpin(key cache.Key) error {
	return r.change(func() {
		r.pins = slices.DeleteFunc(r.pins, func(p pin) bool { return p.Key == key })
	})
}
