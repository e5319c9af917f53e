// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends/disk"
)

// Drafts returns all records, oldest first.
func (s *Spool) Drafts() []Info {
	s.mu.Lock()
	var infos []Info
	for _, e := range s.drafts {
		if !e.removed.Load() {
			infos = append(infos, e.info())
		}
	}
	s.mu.Unlock()
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.ID, b.ID) })
	return infos
}

// Held reports whether a handle on the draft with that ID is open and not idle.
func (s *Spool) Held(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.drafts[id]
	return e != nil && e.busy > 0
}

// Discard drops a draft and its data, durably.
// Errors: ErrInUse while a handle is open and not idle; fs.ErrNotExist; the local disk's.
func (s *Spool) Discard(id string) error {
	s.mu.Lock()
	e := s.drafts[id]
	busy := e != nil && e.busy > 0
	if e != nil && !busy {
		e.removed.Store(true) // from here on nobody can open it
	}
	s.mu.Unlock()
	switch {
	case e == nil:
		return errNoDraft(id)
	case busy:
		return fmt.Errorf("%w: draft %s is open", ErrInUse, id)
	}
	err := e.drop()
	if file := e.file.current(); file != nil {
		freeData(file)
	}
	return err
}

// freeData gives the room of a file back that has no name any more, though handles
// are open.
func freeData(file *os.File) {
	if info, err := file.Stat(); err == nil && disk.Names(info) == 0 {
		_ = file.Truncate(0)
	}
}

// orphan reports whether only a person may drop that draft.
func (s *Spool) orphan(id string) bool {
	s.mu.Lock()
	e := s.drafts[id]
	s.mu.Unlock()
	return e == nil || e.rec.Load().Orphan
}

// Usage returns the directory, and the bytes of the disk that the drafts take.
func (s *Spool) Usage() (dir string, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.drafts {
		if info, err := os.Lstat(e.dir.data()); err == nil {
			bytes += disk.Allocated(info)
		}
	}
	return s.dir, bytes
}
