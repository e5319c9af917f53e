// SPDX-License-Identifier: Apache-2.0

package catalog

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
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// A madeCollection was made by hand, and has no image yet.
type madeCollection struct {
	Remote     string `json:"remote"`
	Collection string `json:"collection"`
}

// A madeChange is one line of the file: made, or gone again.
type madeChange struct {
	madeCollection
	Gone bool `json:"gone,omitempty"`
}

// madeCollections are the collections made by hand. Their file is an array of
// madeCollection, and after it the changes since, one a line: making one costs the
// same however many there are. Other processes append to it too. The zero value is
// ready, and keeps them in memory.
type madeCollections struct {
	mu sync.Mutex // guards the fields below
	madeState
}

type madeState struct {
	all     map[madeCollection]struct{}
	below   map[madeCollection]map[string]int // by parent: the full names of children, and how many of all stand there or below
	loaded  bool                              // the file was looked for
	file    os.FileInfo                       // that was read; nil if there is none
	size    int64                             // bytes of it that were read
	changes int                               // lines of it after the array
}

// maxChanges is how many changes a file has at least before it is written anew.
const maxChanges = 1000

// set puts a collection among them, or takes it out, in memory. It needs mu.
func (m *madeCollections) set(c madeChange) {
	if _, is := m.all[c.madeCollection]; is != c.Gone {
		return
	}
	if m.all == nil {
		m.all, m.below = make(map[madeCollection]struct{}), make(map[madeCollection]map[string]int)
	}
	step := 1
	if c.Gone {
		step = -1
		delete(m.all, c.madeCollection)
	} else {
		m.all[c.madeCollection] = struct{}{}
	}
	for at := c.Collection; at != ""; {
		parent, _ := parentOf(at)
		key := madeCollection{c.Remote, parent}
		if m.below[key] == nil {
			m.below[key] = make(map[string]int)
		}
		if m.below[key][at] += step; m.below[key][at] == 0 {
			delete(m.below[key], at)
		}
		at = parent
	}
}

// read takes in what the file in dir has that was not read yet: all of it, if it is
// another one. One that is damaged counts as empty, and is kept beside. It needs mu.
func (m *madeCollections) read(dir string) error {
	path := filepath.Join(dir, collectionsFile)
	f, err := backends.OpenRegular(path, os.O_RDONLY|backends.NoFollow, 0)
	if errors.Is(err, fs.ErrNotExist) {
		m.madeState = madeState{loaded: true}
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
		m.madeState = madeState{}
	}
	text, err := io.ReadAll(io.NewSectionReader(f, m.size, min(info.Size(), maxRecords)-m.size))
	if err != nil {
		return fmt.Errorf("read %s: %v", path, err)
	}
	if err := m.decode(text); err != nil {
		m.madeState = madeState{loaded: true}
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
func (m *madeCollections) decode(text []byte) error {
	if m.size == 0 {
		var all []madeCollection
		dec := json.NewDecoder(bytes.NewReader(text))
		if err := dec.Decode(&all); err != nil {
			return err
		}
		for _, c := range all {
			m.set(madeChange{madeCollection: c})
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
		var c madeChange
		if len(line) > 0 && json.Unmarshal(line, &c) == nil {
			m.set(c)
			m.changes++
		}
	}
}

// change makes a change, durably where there is a directory.
func (m *madeCollections) change(dir string, c madeChange) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if dir == "" {
		m.set(c)
		return nil
	}
	if err := m.read(dir); err != nil {
		return err
	}
	if _, is := m.all[c.madeCollection]; is != c.Gone {
		return nil
	}
	if m.file == nil || m.changes > maxChanges && m.changes > 2*len(m.all) {
		return m.write(dir, c)
	}
	if err := appendJSON(filepath.Join(dir, collectionsFile), c); err != nil {
		return err
	}
	return m.read(dir)
}

// write replaces the file by one with what is known and that change. It needs mu.
func (m *madeCollections) write(dir string, c madeChange) error {
	m.set(c)
	all := slices.Collect(maps.Keys(m.all))
	m.madeState = madeState{}
	if err := writeJSON(dir, collectionsFile, all); err != nil {
		return err
	}
	return m.read(dir)
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
		return diskError("write "+path, err)
	}
	return nil
}

// children returns the full names of the collections directly below one at which, or
// below which, a collection was made.
func (m *madeCollections) children(dir, remote, collection string) map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load(dir)
	below := m.below[madeCollection{remote, collection}]
	names := make(map[string]bool, len(below))
	for name := range below {
		names[name] = true
	}
	return names
}

// is reports whether a collection was made by hand, or lies above one.
func (m *madeCollections) is(dir, remote, collection string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.load(dir)
	if collection == "" {
		return len(m.below[madeCollection{remote, ""}]) > 0
	}
	parent, _ := parentOf(collection)
	return m.below[madeCollection{remote, parent}][collection] > 0
}

// load reads the file if it was not read yet; an error shows with the next change.
// It needs mu.
func (m *madeCollections) load(dir string) {
	if !m.loaded && dir != "" {
		_ = m.read(dir)
	}
}

// isMade reports whether a collection was made by hand, or lies above one.
func (r *records) isMade(remote, collection string) bool { return r.made.is(r.dir, remote, collection) }

// children is the method of that name of madeCollections.
func (r *records) children(remote, collection string) map[string]bool {
	return r.made.children(r.dir, remote, collection)
}

func (r *records) make(remote, collection string) error {
	return r.made.change(r.dir, madeChange{madeCollection: madeCollection{remote, collection}})
}

func (r *records) unmake(remote, collection string) error {
	return r.made.change(r.dir, madeChange{madeCollection: madeCollection{remote, collection}, Gone: true})
}
