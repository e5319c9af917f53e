// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/sha256"
	"errors"
	"hash"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends/disk"
)

// An entry is what all handles on a draft share.
type entry struct {
	spool *Spool
	id    string
	journal

	stored  atomic.Int64 // as Info.Stored
	removed atomic.Bool  // removed: cannot be opened again
	warned  atomic.Bool  // a warning said that it is kept

	sealing chan struct{} // one seat, for the call that seals

	data   sync.Mutex // serialises changes of the content, and guards the fields below
	gen    uint64     // counts them
	hash   hash.Hash  // of the first hashed bytes of the content
	hashed int64
	format string // of the image, as Seal found it; "" if nobody looked since the last change

	withdrawn atomic.Bool // no try may begin, or commit; changed under data

	refs int      // handles; guarded by spool.mu
	busy int      // of them, those that are not idle; likewise
	uses int      // of file: a busy handle, one that is held open, and each call; likewise
	file *os.File // open while uses > 0; guarded by spool.mu
}

func newEntry(s *Spool, id string) *entry {
	return &entry{spool: s, id: id, journal: journal{dir: folder(filepath.Join(s.dir, id)), log: s.opts.Log},
		sealing: make(chan struct{}, 1), hash: sha256.New()}
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

// sealed reports whether the draft is whole and durable.
func (e *entry) sealed() bool { return e.rec.Load().State.settled() }

// acquire returns the data file, which it opens if it is not. release gives it back.
func (e *entry) acquire() (*os.File, error) {
	e.spool.mu.Lock()
	defer e.spool.mu.Unlock()
	return e.acquireLocked()
}

// acquireLocked is acquire; the caller holds spool.mu.
func (e *entry) acquireLocked() (*os.File, error) {
	if e.file == nil {
		file, err := e.dir.open()
		if err != nil {
			return nil, diskError("open "+e.id, err)
		}
		e.file = file
	}
	e.uses++
	return e.file, nil
}

// release closes the data file after its last use.
func (e *entry) release() error {
	e.spool.mu.Lock()
	file := e.releaseLocked()
	e.spool.mu.Unlock()
	return closeData(file)
}

// releaseLocked is release; the caller holds spool.mu. It returns what is to be closed then, or
// nil.
func (e *entry) releaseLocked() (last *os.File) {
	if e.uses--; e.uses == 0 && !e.spool.closed.Load() {
		last, e.file = e.file, nil
	}
	return last
}

func closeData(file *os.File) error {
	if file == nil {
		return nil
	}
	return diskError("close", file.Close())
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
