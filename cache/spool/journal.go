// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// A journal is the record of one draft, in memory and in its meta.json.
type journal struct {
	dir folder
	log *slog.Logger

	rec     atomic.Pointer[record] // replaced by the methods only
	size    atomic.Int64           // bytes in the data file
	stored  atomic.Int64           // as Info.Stored
	touched atomic.Int64           // when that was written last, in Unix nanoseconds

	mu      sync.Mutex // serialises changes, and guards the fields below
	gone    bool       // the folder is no more
	durable bool       // meta.json and the names in the folder outlive power loss as they are
	noted   bool       // rec has what meta.json has not
}

// change makes fn's change of the record, in the journal first. It is durable if
// the draft is settled before or after: a plain rename over a durable journal
// could leave neither after power loss.
// Errors: fs.ErrInvalid for a state that does not follow on the one it is in; the disk's.
func (j *journal) change(fn func(*record)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	old, next, err := j.changed(fn)
	if err != nil {
		return err
	}
	next.Size, next.Changed = j.size.Load(), time.Now()
	if err := j.store(next, old.State.settled() || next.State.settled()); err != nil {
		return err
	}
	j.rec.Store(next)
	return nil
}

// changed returns the record before and after fn. The caller holds mu.
func (j *journal) changed(fn func(*record)) (old, next *record, err error) {
	old = j.rec.Load()
	after := *old
	if after.ModTime.IsZero() {
		after.ModTime = j.lastChange() // a change of state, or of the name, is no change of the file
	}
	fn(&after)
	if !old.State.mayBecome(after.State) {
		err = fmt.Errorf("%w: draft %s is %s, not to be set %s", fs.ErrInvalid, old.ID, old.State, after.State)
	}
	return old, &after, err
}

// lastChange returns when the draft was changed last: its content, its state or its name.
func (j *journal) lastChange() time.Time {
	changed := j.rec.Load().Changed
	if t := time.Unix(0, j.touched.Load()); t.After(changed) {
		return t
	}
	return changed
}

// mark is change in memory only. Errors: fs.ErrInvalid.
func (j *journal) mark(fn func(*record)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, next, err := j.changed(fn)
	if err == nil {
		j.rec.Store(next)
	}
	return err
}

// store writes the journal. The caller holds mu.
func (j *journal) store(r *record, durable bool) error {
	if j.gone {
		return nil
	}
	j.durable = false
	if err := j.dir.write(r, durable); err != nil {
		return diskError("journal of "+r.ID, err)
	}
	j.durable, j.noted = durable, false
	return nil
}

// remember is change, but holds in memory even where the journal cannot be
// written.
func (j *journal) remember(fn func(*record)) error {
	err := j.change(fn)
	if err == nil {
		return nil
	}
	return errors.Join(err, j.mark(func(r *record) { fn(r); r.Changed = time.Now() }))
}

// note changes the record in memory only. The journal follows with the next change or
// save, as the change alone is not worth a write to the disk.
func (j *journal) note(fn func(*record)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	next := *j.rec.Load()
	fn(&next)
	j.rec.Store(&next)
	j.durable, j.noted = false, true
}

// save writes what was only noted.
func (j *journal) save() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.noted {
		return
	}
	rec := j.rec.Load()
	if err := j.store(rec, rec.State.settled()); err != nil {
		j.log.Warn("the times and modes of a draft are not in its journal", "draft", j.rec.Load().ID, "err", err)
	}
}

// sync makes the journal durable as it is.
func (j *journal) sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.durable {
		return nil
	}
	return j.store(j.rec.Load(), true)
}

// sealed reports whether the draft is whole and durable.
func (j *journal) sealed() bool { return j.rec.Load().State.settled() }

// writable returns why the content cannot be changed now. The caller holds content.mu.
func (j *journal) writable() error {
	switch state := j.rec.Load().State; {
	case state == published:
		return fmt.Errorf("%w: draft %s was published", ErrInUse, j.rec.Load().ID)
	case state.underWay():
		return fmt.Errorf("%w: draft %s is being published", ErrInUse, j.rec.Load().ID)
	}
	return nil
}
