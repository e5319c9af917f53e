// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// An entry is what all handles on a draft share. Its locks are taken in the
// order data, journal, Spool.mu.
type entry struct {
	spool *Spool
	id    string
	dir   folder

	rec     atomic.Pointer[record] // the journal's content; replaced by change only
	size    atomic.Int64           // bytes in the data file
	stored  atomic.Int64           // as DraftInfo.Stored
	touched atomic.Int64           // time of the last write or change, ns
	dirty   atomic.Bool
	doomed  atomic.Bool // removed: cannot be opened again
	warned  atomic.Bool // somebody was told that it is kept

	journal sync.Mutex // serialises changes of rec and meta.json, and guards the fields below
	gone    bool       // the folder is no more
	durable bool       // meta.json and the names in the folder outlive power loss as they are
	noted   bool       // rec has what meta.json has not

	sealing chan struct{} // one seat: whoever seals

	data   sync.Mutex // serialises changes of the content, and guards the fields below
	gen    uint64     // counts them
	hash   hash.Hash  // of the first hashed bytes of the content
	hashed int64
	lent   bool // a Source is out
	moved  bool // the data belongs to somebody else

	refs int      // handles; guarded by spool.mu
	busy int      // of them, those that are not idle; likewise
	uses int      // of file: a busy handle, one that is held open, and each call; likewise
	file *os.File // open while uses > 0; guarded by spool.mu
}

func newEntry(s *Spool, id string) *entry {
	return &entry{spool: s, id: id, dir: folder(filepath.Join(s.dir, id)),
		sealing: make(chan struct{}, 1), hash: sha256.New()}
}

func (e *entry) info() DraftInfo {
	info := e.rec.Load().DraftInfo
	info.Size, info.Stored = e.size.Load(), e.stored.Load()
	if t := time.Unix(0, e.touched.Load()); t.After(info.Changed) {
		info.Changed = t
	}
	if info.ModTime.IsZero() {
		info.ModTime = info.Changed
	}
	return info
}

// change makes fn's change of the record, in the journal first. It is durable if
// the draft is settled before or after: a plain rename over a durable journal
// could leave neither after power loss.
func (e *entry) change(fn func(*record)) error {
	e.journal.Lock()
	defer e.journal.Unlock()
	old := e.rec.Load()
	next := *old
	if next.ModTime.IsZero() {
		next.ModTime = e.info().ModTime // a change of state, or of the name, is none of the file
	}
	fn(&next)
	next.Size, next.Changed = e.size.Load(), time.Now()
	if err := e.store(&next, old.State.settled() || next.State.settled()); err != nil {
		return err
	}
	e.rec.Store(&next)
	return nil
}

// store writes the journal. The caller holds journal.
func (e *entry) store(r *record, durable bool) error {
	if e.gone {
		return nil
	}
	e.durable = false
	if err := e.dir.write(r, durable); err != nil {
		return spoolError("journal of "+e.id, err)
	}
	e.durable, e.noted = durable, false
	return nil
}

// remember is change, but holds in memory even where the journal cannot be
// written.
func (e *entry) remember(fn func(*record)) error {
	err := e.change(fn)
	if err == nil {
		return nil
	}
	e.journal.Lock()
	defer e.journal.Unlock()
	next := *e.rec.Load()
	fn(&next)
	next.Changed = time.Now()
	e.rec.Store(&next)
	return err
}

// writable returns why the content cannot be changed now. The caller holds data.
func (e *entry) writable() error {
	switch {
	case e.moved:
		return fmt.Errorf("%w: draft %s was published", ErrInUse, e.id)
	case e.lent || e.rec.Load().State == Publishing:
		return fmt.Errorf("%w: draft %s is being published", ErrInUse, e.id)
	}
	return nil
}

// begin readies the draft for a change of its content. The caller holds data.
func (e *entry) begin(file *os.File) error {
	if err := e.writable(); err != nil {
		return err
	}
	rec := e.rec.Load()
	if rec.State == Writing {
		return nil
	}
	if rec.State.settled() {
		info, err := file.Stat()
		if err != nil {
			return spoolError("write", err)
		}
		if linked(info) {
			return fmt.Errorf("%w: the data of draft %s is linked into a registry: copy the file anew", ErrInUse, e.id)
		}
	}
	err := e.change(func(r *record) {
		r.State, r.Digest, r.Error = Writing, "", ""
		r.Session, r.Stored, r.Attempts = nil, 0, 0
		e.stored.Store(0)
	})
	if err == nil && rec.State.settled() {
		e.dirty.Store(true) // the seal is broken, even if the write then fails
	}
	return err
}

// changed notes a change of the content. The caller holds data.
func (e *entry) changed() {
	e.gen++
	e.dirty.Store(true)
	e.touched.Store(time.Now().UnixNano())
	if rec := e.rec.Load(); !rec.ModTime.IsZero() {
		e.note(func(r *record) { r.ModTime = time.Time{} })
	}
}

// note makes a change of the record that is worth no write to the disk: the journal
// follows with the next change, or save.
func (e *entry) note(fn func(*record)) {
	e.journal.Lock()
	defer e.journal.Unlock()
	next := *e.rec.Load()
	fn(&next)
	e.rec.Store(&next)
	e.durable, e.noted = false, true
}

// save writes what was only noted.
func (e *entry) save() {
	e.journal.Lock()
	defer e.journal.Unlock()
	if !e.noted {
		return
	}
	rec := e.rec.Load()
	if err := e.store(rec, rec.State.settled()); err != nil {
		e.spool.opts.Log.Warn("the times and modes of a draft are not in its journal", "draft", e.id, "err", err)
	}
}

func (e *entry) write(file *os.File, p []byte, off int64) (int, error) {
	e.data.Lock()
	defer e.data.Unlock()
	if err := e.withRoom(func() error { return e.spool.room.take(int64(len(p))) }); err != nil {
		return 0, err
	}
	if err := e.begin(file); err != nil {
		return 0, err
	}
	if off < e.hashed {
		e.rehash()
	}
	var n int
	err := e.withRoom(func() error {
		more, err := file.WriteAt(p[n:], off+int64(n))
		n += more
		return err
	})
	if n > 0 {
		// A file copied from front to back is hashed on its way.
		if off == e.hashed {
			e.hash.Write(p[:n])
			e.hashed += int64(n)
		}
		e.size.Store(max(e.size.Load(), off+int64(n)))
		e.changed()
	}
	return n, spoolError("write", err)
}

// rehash forgets the running digest. The caller holds data.
func (e *entry) rehash() {
	e.hash.Reset()
	e.hashed = 0
}

func (e *entry) truncate(file *os.File, size int64) error {
	e.data.Lock()
	defer e.data.Unlock()
	if size == e.size.Load() {
		return nil
	}
	if err := e.begin(file); err != nil {
		return err
	}
	if size < e.hashed {
		e.rehash()
	}
	if err := file.Truncate(size); err != nil {
		return spoolError("truncate", err)
	}
	e.size.Store(size)
	e.changed()
	return nil
}

func (e *entry) allocate(file *os.File, off, n int64, keepSize bool) error {
	e.data.Lock()
	defer e.data.Unlock()
	if err := e.withRoom(func() error { return e.spool.room.take(n) }); err != nil {
		return err
	}
	if err := e.begin(file); err != nil {
		return err
	}
	if err := e.withRoom(func() error { return allocate(file, off, n, keepSize) }); err != nil {
		return spoolError("allocate", err)
	}
	if end := off + n; !keepSize && end > e.size.Load() {
		e.size.Store(end)
		e.changed()
	}
	return nil
}

// acquire returns the data file, which it opens if it is not. letGo gives it back.
func (e *entry) acquire() (*os.File, error) {
	e.spool.mu.Lock()
	defer e.spool.mu.Unlock()
	return e.acquireLocked()
}

// acquireLocked is acquire for who has spool.mu.
func (e *entry) acquireLocked() (*os.File, error) {
	if e.file == nil {
		file, err := e.dir.open()
		if err != nil {
			return nil, spoolError("open "+e.id, err)
		}
		e.file = file
	}
	e.uses++
	return e.file, nil
}

// letGo closes the data file after its last use.
func (e *entry) letGo() error {
	e.spool.mu.Lock()
	file := e.letGoLocked()
	e.spool.mu.Unlock()
	return closeData(file)
}

// letGoLocked is letGo for who has spool.mu. It returns what is to be closed then, or
// nil.
func (e *entry) letGoLocked() (last *os.File) {
	if e.uses--; e.uses == 0 && !e.spool.closed.Load() {
		last, e.file = e.file, nil
	}
	return last
}

func closeData(file *os.File) error {
	if file == nil {
		return nil
	}
	return spoolError("close", file.Close())
}

// release gives up one handle.
func (e *entry) release(d *Draft) error {
	e.spool.mu.Lock()
	file := d.letGoLocked(true)
	e.refs--
	last := e.refs == 0
	e.spool.mu.Unlock()
	err := closeData(file)
	if !last {
		return err
	}
	e.save()
	err = errors.Join(err, e.abandon())
	if e.doomed.Load() {
		err = errors.Join(err, e.drop())
	}
	return err
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

// warn tells once of a file that is kept.
func (e *entry) warn(info DraftInfo) {
	if e.warned.Swap(true) {
		return
	}
	todo := "rename it to an image's name in the mount, or discard it"
	if info.Target.File == "" {
		todo = "publish it (sreg uploads retry), or discard it"
	}
	e.spool.opts.Log.Warn("a file is kept here and was never published: "+todo, "draft", info.ID,
		"remote", info.Target.Remote, "file", info.Target.File, "bytes", info.Size)
}

// drop deletes the draft. It is gone, durably, when drop returns nil.
func (e *entry) drop() error {
	e.doomed.Store(true)
	e.journal.Lock()
	defer e.journal.Unlock()
	if e.gone {
		return nil
	}
	grave := string(e.dir) + goneSuffix
	if err := os.Rename(string(e.dir), grave); err != nil {
		return spoolError("remove "+e.id, err)
	}
	e.gone = true
	e.spool.mu.Lock()
	delete(e.spool.drafts, e.id)
	e.spool.mu.Unlock()
	err := syncFolder(e.spool.dir)
	return spoolError("remove "+e.id, errors.Join(err, os.RemoveAll(grave)))
}

// syncJournal makes the journal durable as it is.
func (e *entry) syncJournal() error {
	e.journal.Lock()
	defer e.journal.Unlock()
	if e.durable {
		return nil
	}
	return e.store(e.rec.Load(), true)
}
