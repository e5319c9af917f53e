// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// recover finds the drafts of earlier runs.
func (s *Spool) recover() error {
	list, err := os.ReadDir(s.dir)
	if err != nil {
		return diskError("open", err)
	}
	for _, item := range list {
		path := filepath.Join(s.dir, item.Name())
		switch {
		case !item.IsDir() || item.Name() == "lost+found":
			continue
		case strings.HasSuffix(item.Name(), goneSuffix):
			err = os.RemoveAll(path)
		default:
			err = s.recoverDraft(item.Name())
		}
		if err != nil {
			s.opts.Log.Warn("cannot tidy up a draft", "path", path, "err", err)
		}
	}
	return nil
}

// recoverDraft takes one folder into the spool, or drops it when there is
// nothing in it to keep. An error means that the disk does not hold yet what the
// spool says of the draft; the next start will come to the same result.
func (s *Spool) recoverDraft(id string) error {
	e := newEntry(s, id)
	size, modified, dataErr := e.dir.stat()
	rec, err := e.dir.read(id)
	switch {
	case errors.Is(dataErr, fs.ErrNotExist) && (err != nil || rec.State != Sealed && rec.State != Failed):
		// Created and nothing more, or published: Publish takes the data away
		// before the folder goes.
		return os.RemoveAll(string(e.dir))
	case err != nil && errors.Is(err, fs.ErrNotExist) && dataErr == nil && size == 0:
		return os.RemoveAll(string(e.dir))
	case err != nil:
		rec = &record{Orphan: true, Info: Info{
			ID: id, State: Incomplete, Created: modified, Changed: modified, Size: size,
			Error: fmt.Sprintf("its journal cannot be read: %v", err)}}
		e.adopt(rec, size)
		// Not written: a damaged journal is left to be looked at.
		return nil
	}
	fresh := *rec
	fresh.settle(size, modified, dataErr)
	e.adopt(&fresh, size)
	if fresh.State == rec.State {
		return nil
	}
	return e.dir.write(&fresh, true)
}

func (e *entry) adopt(rec *record, size int64) {
	e.size.Store(size)
	e.stored.Store(rec.Stored)
	e.touched.Store(rec.Changed.UnixNano())
	e.rec.Store(rec)
	e.spool.drafts[e.id] = e
}

// settle says what a record means after the process that wrote it has ended,
// given what is known of the data file.
func (r *record) settle(size int64, modified time.Time, dataErr error) {
	if modified.After(r.Changed) && !r.State.settled() {
		r.Changed = modified
	}
	switch {
	case dataErr != nil && r.State.settled():
		r.State, r.Error = Failed, fmt.Sprintf("its data cannot be read: %v", dataErr)
	case dataErr != nil:
		r.State, r.Error = Incomplete, fmt.Sprintf("its data cannot be read: %v", dataErr)
	case r.State.settled() && size != r.Size:
		// It was acknowledged once: only a person may drop it.
		r.State, r.Orphan = Incomplete, true
		r.Error = fmt.Sprintf("its data is %d bytes long, but %d were sealed", size, r.Size)
	case r.State == Writing:
		r.State, r.Error = Incomplete, "the program ended while it was being copied in"
	case r.State == Publishing && r.Target.Async:
		r.State = Sealed
	case r.State == Publishing || r.State == Sealed && !r.Target.Async:
		// Its writer has seen an error: publishing it now, perhaps over what the writer
		// did instead, would need the writer's consent.
		r.State, r.Error = Failed, "the program ended before it was published"
	}
}
