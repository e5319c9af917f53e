// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends/disk"
)

// goneSuffix marks the folder of a draft that is being deleted: the rename is
// the moment from which the draft does not exist, whatever a crash leaves behind.
const goneSuffix = ".gone"

// An entry is what all handles on a draft share.
type entry struct {
	spool *Spool
	id    string
	journal

	removed atomic.Bool // removed: cannot be opened again
	warned  atomic.Bool // a warning said that it is kept

	sealing chan struct{} // full while a call seals

	content   content
	withdrawn atomic.Bool // no try may begin, or commit; changed under content.mu

	file dataFile
	refs int // handles; guarded by spool.mu
	busy int // of them, those that are not idle; likewise
}

func newEntry(s *Spool, id string) *entry {
	e := &entry{spool: s, id: id, sealing: make(chan struct{}, 1)}
	e.dir, e.log = folder(filepath.Join(s.dir, id)), s.opts.Log
	e.content = content{journal: &e.journal, headroom: &s.headroom, reclaim: e.reclaim, hash: sha256.New()}
	e.file.dir, e.file.ended = e.dir, &s.closed
	return e
}

func (e *entry) info() Info {
	info := e.rec.Load().Info
	info.State = info.State.stored()
	info.Size, info.Stored = e.size.Load(), e.stored.Load()
	info.Changed = e.lastChange()
	if info.ModTime.IsZero() {
		info.ModTime = info.Changed
	}
	return info
}

// abandon ends the state Writing when nobody writes any more.
func (e *entry) abandon() error {
	if e.rec.Load().State != Writing {
		return nil
	}
	return e.change(func(r *record) {
		r.State, r.Error = Incomplete, "closed before it was a whole image"
	})
}

// drop deletes the draft. It is gone, durably, when drop returns nil.
func (e *entry) drop() error {
	e.removed.Store(true)
	e.journal.mu.Lock()
	defer e.journal.mu.Unlock()
	if e.gone {
		return nil
	}
	aside := string(e.dir) + goneSuffix
	if err := os.Rename(string(e.dir), aside); err != nil {
		return diskError("remove "+e.id, err)
	}
	e.gone = true
	e.spool.mu.Lock()
	delete(e.spool.drafts, e.id)
	e.spool.mu.Unlock()
	err := disk.SyncDir(e.spool.dir)
	return diskError("remove "+e.id, errors.Join(err, os.RemoveAll(aside)))
}

// A handle is what a Draft, its Bytes and its Upload have in common.
type handle struct {
	entry  *entry
	idle   bool // guarded by spool.mu
	kept   bool // open though idle; likewise
	closed atomic.Bool
}

func (h *handle) live() error {
	if h.closed.Load() || h.entry.spool.closed.Load() {
		return ErrClosed
	}
	return nil
}

// use calls fn with the data file.
func (h *handle) use(fn func(*os.File) error) error {
	if err := h.live(); err != nil {
		return err
	}
	file, err := h.entry.file.acquire()
	if err != nil {
		return err
	}
	return errors.Join(fn(file), closeData(h.entry.file.release()))
}
