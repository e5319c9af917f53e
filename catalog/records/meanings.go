// SPDX-License-Identifier: Apache-2.0

package records

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// A Meaning is what a tag meant for a while.
type Meaning struct {
	Remote  string       `json:"remote"`
	Ref     backends.Ref `json:"ref"` // without a version
	Version string       `json:"version"`
	Digest  string       `json:"digest,omitempty"`
	Size    int64        `json:"size"`  // bytes; -1 if not known
	First   time.Time    `json:"first"` // when that was first seen here
	Last    time.Time    `json:"last"`  // and last, to an hour
}

func (m Meaning) name() named { return named{m.Remote, m.Ref} }

// meanings are the histories of tags: of each, what it meant, the oldest first. Their file
// has a line for each time that something else was seen, or the same an hour later; of two
// lines that follow each other with one version the second moves Last. Other processes append
// to it too. The zero value is ready; without a dir it keeps them in memory.
type meanings struct {
	dir string
	mu  sync.Mutex // guards the fields below

	loaded bool
	size   int64 // bytes of the file when it was read, and what was appended since
	of     map[named][]Meaning
}

const (
	meaningsFile = "tags.jsonl"
	// seenEvery is how exact Meaning.Last is.
	seenEvery = time.Hour
	// maxMeanings is how many are kept of one tag, the newest.
	maxMeanings = 50
	// maxTags is how many tags are kept when the file is written anew, those that were seen last.
	maxTags = 10_000
	// maxMeaningsFile is the size in bytes above which the file is written anew.
	maxMeaningsFile = 8 << 20
)

func (h *meanings) path() string { return filepath.Join(h.dir, meaningsFile) }

// add takes in what was seen. It needs mu.
func (h *meanings) add(m Meaning) {
	if h.of == nil {
		h.of = make(map[named][]Meaning)
	}
	all := h.of[m.name()]
	if n := len(all); n > 0 && all[n-1].Version == m.Version {
		if m.Last.After(all[n-1].Last) {
			all[n-1].Last = m.Last
		}
		return
	}
	if len(all) >= maxMeanings {
		all = slices.Delete(all, 0, len(all)-maxMeanings+1)
	}
	h.of[m.name()] = append(all, m)
}

// load reads the file, with again also if it was read. It needs mu.
func (h *meanings) load(again bool) error {
	if h.dir == "" || h.loaded && !again {
		return nil
	}
	text, err := backends.ReadRegular(h.path(), backends.NoFollow, maxRecords)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %v", h.path(), err)
	}
	h.of, h.loaded, h.size = nil, true, int64(len(text))
	for line := range bytes.Lines(text) {
		var m Meaning
		// A line that a crash has cut is passed over.
		if json.Unmarshal(line, &m) == nil && m.Ref.Check() == nil && m.Version != "" {
			h.add(m)
		}
	}
	return nil
}

// isNew reports whether there is something to write. It needs mu.
func (h *meanings) isNew(m Meaning, begin bool) bool {
	all := h.of[m.name()]
	if len(all) == 0 {
		return begin
	}
	last := all[len(all)-1]
	return last.Version != m.Version || m.Last.Sub(last.Last) >= seenEvery
}

// Saw notes what a tag means now, if the tag has a history, or with begin in any case. It
// returns nil if there is nothing to note, else what writes it durably, which takes a while.
func (h *meanings) Saw(remote string, img backends.Image, at time.Time, begin bool) (write func() error) {
	if img.Ref.Version != "" || img.Version == "" {
		return nil
	}
	m := Meaning{Remote: remote, Ref: img.Ref, Version: img.Version, Digest: img.Digest, Size: img.Size, First: at, Last: at}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.load(false) != nil || !h.isNew(m, begin) {
		return nil
	}
	h.add(m)
	if h.dir == "" {
		return nil
	}
	return func() error { return h.append(m) }
}

// append adds a line to the file, which is written anew if it has become too large.
func (h *meanings) append(m Meaning) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.size > maxMeaningsFile {
		return h.rewrite()
	}
	if missing(h.path()) {
		// The store may be shared by a group: the umask says who may read and write this.
		if err := errors.Join(os.MkdirAll(h.dir, 0o777), begin(h.path())); err != nil {
			return backends.DiskError("write "+h.path(), err)
		}
	}
	err := appendJSON(h.path(), m)
	if info, statErr := os.Lstat(h.path()); statErr == nil {
		h.size = info.Size()
	}
	return err
}

// rewrite writes one line for each meaning, of the tags that were seen last. It needs mu.
func (h *meanings) rewrite() error {
	mine := h.of
	if err := h.load(true); err != nil {
		return err
	}
	for _, all := range mine { // the last line is not in the file yet
		h.add(all[len(all)-1])
	}
	seen := slices.SortedFunc(maps.Values(h.of), func(a, b []Meaning) int { return b[len(b)-1].Last.Compare(a[len(a)-1].Last) })
	h.of = make(map[named][]Meaning)
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	for _, all := range seen[:min(len(seen), maxTags)] {
		if text.Len() > maxMeaningsFile/2 {
			break
		}
		h.of[all[0].name()] = all
		for _, m := range all {
			if err := lines.Encode(m); err != nil {
				return err
			}
		}
	}
	h.size = int64(text.Len())
	if err := disk.Replace(h.path(), text.Bytes(), disk.Replacement{Perm: 0o666}); err != nil {
		return backends.DiskError("write "+h.path(), err)
	}
	return nil
}

// Meanings returns what the tags of an image meant, tag by tag, the newest first. An error
// of the file counts as nothing.
func (h *meanings) Meanings(remote string, ref backends.Ref) (found []Meaning) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = h.load(true)
	for name, all := range h.of {
		if name.remote == remote && name.ref.Collection == ref.Collection && name.ref.Name == ref.Name {
			found = append(found, all...)
		}
	}
	slices.SortStableFunc(found, func(a, b Meaning) int {
		return cmp.Or(cmp.Compare(a.Ref.Tag, b.Ref.Tag), b.First.Compare(a.First))
	})
	return found
}
