// SPDX-License-Identifier: Apache-2.0

package records

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

// Records are the pins, a small JSON file that is replaced as a whole, the pins of runs, and
// the collections made by hand. Another process may write the files too, so that a change reads first
// what is new. Methods may be called from many goroutines
// at once.
type Records struct {
	collections
	runs

	dir    string
	mu     sync.Mutex // guards the fields below
	loaded bool
	pins   []Pin
}

// New returns the records in dir, which is made when something is first written;
// with "" they are kept in memory.
func New(dir string) *Records {
	return &Records{collections: collections{dir: dir}, runs: runs{dir: dir}, dir: dir}
}

// A Pin keeps a blob from eviction.
type Pin struct {
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
func (r *Records) load() error {
	if r.dir == "" {
		return nil
	}
	pins, err := readJSON[[]Pin](filepath.Join(r.dir, pinsFile))
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

// change replaces the pins that the file holds now by what f makes of a copy.
func (r *Records) change(f func([]Pin) []Pin) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return err
	}
	pins := f(slices.Clone(r.pins))
	if r.dir != "" && !slices.Equal(pins, r.pins) {
		if err := writeJSON(r.dir, pinsFile, pins); err != nil {
			return err
		}
	}
	r.pins = pins
	return nil
}

// writeJSON replaces a file so that either the old or the new one is there after
// a power loss.
func writeJSON(dir, name string, v any) (err error) {
	defer func() {
		if err != nil {
			err = backends.DiskError("write "+filepath.Join(dir, name), err)
		}
	}()
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	// The store may be shared by a group: the umask says who may read and write this.
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return disk.Replace(filepath.Join(dir, name), append(text, '\n'), disk.Replacement{Perm: 0o666})
}

// Pins returns what is pinned. An error shows with the next change.
func (r *Records) Pins() []Pin {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded && r.load() != nil {
		return nil
	}
	return slices.Clone(r.pins)
}

// Pin adds a pin, unless there is one of its key. Errors: those of the local disk.
func (r *Records) Pin(p Pin) error {
	return r.change(func(pins []Pin) []Pin {
		if slices.ContainsFunc(pins, func(o Pin) bool { return o.Key == p.Key }) {
			return pins
		}
		return append(pins, p)
	})
}

// Unpin is the inverse of Pin.
func (r *Records) Unpin(key cache.Key) error {
	return r.change(func(pins []Pin) []Pin {
		return slices.DeleteFunc(pins, func(p Pin) bool { return p.Key == key })
	})
}
