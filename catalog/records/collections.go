// SPDX-License-Identifier: Apache-2.0

package records

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// A key is a collection that was made by hand, and has no image yet.
type key struct {
	Remote     string `json:"remote"`
	Collection string `json:"collection"`
}

// A change is one line of the file: made, or removed.
type change struct {
	key
	Gone bool `json:"gone,omitempty"`
}

// collections are the collections made by hand. Their file is an array of
// key, and after it the changes since, one a line: making one costs the
// same however many there are. Other processes append to it too. The zero value is
// ready; without a dir it keeps them in memory.
type collections struct {
	dir string
	mu  sync.Mutex // guards the fields below
	state
}

type state struct {
	all     map[key]struct{}
	below   map[key]map[string]int // by parent: the full names of children, and how many are there or below
	loaded  bool                   // the file was looked for
	file    os.FileInfo            // that was read; nil if there is none
	size    int64                  // bytes of it that were read
	changes int                    // lines of it after the array
}

// maxChanges is how many changes a file has at least before it is replaced.
const maxChanges = 1000

// set adds or removes a collection in memory. It needs mu.
func (m *collections) set(c change) {
	if _, is := m.all[c.key]; is != c.Gone {
		return
	}
	if m.all == nil {
		m.all, m.below = make(map[key]struct{}), make(map[key]map[string]int)
	}
	step := 1
	if c.Gone {
		step = -1
		delete(m.all, c.key)
	} else {
		m.all[c.key] = struct{}{}
	}
	for at := c.Collection; at != ""; {
		parent := key{c.Remote, parentOf(at)}
		if m.below[parent] == nil {
			m.below[parent] = make(map[string]int)
		}
		if m.below[parent][at] += step; m.below[parent][at] == 0 {
			delete(m.below[parent], at)
		}
		at = parent.Collection
	}
}

// read takes in what the file has that was not read yet: all of it, if it is
// another one. One that is damaged counts as empty, and is kept beside. It needs mu.
func (m *collections) read() error {
	path := filepath.Join(m.dir, collectionsFile)
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		m.state = state{loaded: true}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %v", path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read %s: %v", path, err)
	}
	if m.file == nil || !os.SameFile(m.file, info) || info.Size() < m.size {
		m.state = state{}
	}
	text, err := io.ReadAll(io.NewSectionReader(f, m.size, min(info.Size(), maxRecords)-m.size))
	if err != nil {
		return fmt.Errorf("read %s: %v", path, err)
	}
	if err := m.decode(text); err != nil {
		m.state = state{loaded: true}
		if err := os.Rename(path, path+".damaged"); err != nil {
			return fmt.Errorf("%s is damaged and cannot be moved aside: %v", path, err)
		}
		return nil
	}
	m.loaded, m.file = true, info
	return nil
}

// decode takes in what stands after the first m.size bytes: whole lines, and of them
// those that can be read. One that a crash has cut is passed over.
func (m *collections) decode(text []byte) error {
	if m.size == 0 {
		var all []key
		dec := json.NewDecoder(bytes.NewReader(text))
		if err := dec.Decode(&all); err != nil {
			return err
		}
		for _, c := range all {
			m.set(change{key: c})
		}
		m.size = dec.InputOffset()
		text = text[m.size:]
	}
	for {
		line, rest, whole := bytes.Cut(text, []byte{'\n'})
		if !whole {
			return nil
		}
		m.size += int64(len(line)) + 1
		text = rest
		var c change
		if len(line) > 0 && json.Unmarshal(line, &c) == nil {
			m.set(c)
			m.changes++
		}
	}
}

// change makes a change, durably where there is a directory.
func (m *collections) change(c change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dir == "" {
		m.set(c)
		return nil
	}
	if err := m.read(); err != nil {
		return err
	}
	if _, is := m.all[c.key]; is != c.Gone {
		return nil
	}
	if m.file == nil || m.changes > maxChanges && m.changes > 2*len(m.all) {
		return m.write(c)
	}
	if err := appendJSON(filepath.Join(m.dir, collectionsFile), c); err != nil {
		return err
	}
	return m.read()
}

// write replaces the file by one with what is known and that change. It needs mu.
func (m *collections) write(c change) error {
	m.set(c)
	all := slices.Collect(maps.Keys(m.all))
	m.state = state{}
	if err := writeJSON(m.dir, collectionsFile, all); err != nil {
		return err
	}
	return m.read()
}

// appendJSON adds a line to a file, durably.
func appendJSON(path string, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := backends.OpenRegular(path, os.O_WRONLY|os.O_APPEND|backends.NoFollow, 0)
	if err == nil {
		_, err = f.Write([]byte("\n" + string(line) + "\n")) // one before may have been cut
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return backends.DiskError("write "+path, err)
	}
	return nil
}

// Children returns the full names of the collections directly below one at which, or
// below which, a collection was made.
func (m *collections) Children(remote, collection string) map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load()
	below := m.below[key{remote, collection}]
	names := make(map[string]bool, len(below))
	for name := range below {
		names[name] = true
	}
	return names
}

// IsMade reports whether a collection was made by hand, or lies above one.
func (m *collections) IsMade(remote, collection string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load()
	if collection == "" {
		return len(m.below[key{remote, ""}]) > 0
	}
	return m.below[key{remote, parentOf(collection)}][collection] > 0
}

// Make notes that a collection was made by hand. Errors: those of the local disk.
func (m *collections) Make(remote, collection string) error {
	return m.change(change{key: key{remote, collection}})
}

// Unmake is the inverse of Make.
func (m *collections) Unmake(remote, collection string) error {
	return m.change(change{key: key{remote, collection}, Gone: true})
}

func parentOf(collection string) string {
	return collection[:max(strings.LastIndexByte(collection, '/'), 0)]
}

// load reads the file if it was not read yet; an error shows with the next change.
// It needs mu.
func (m *collections) load() {
	if !m.loaded && m.dir != "" {
		_ = m.read()
	}
}
