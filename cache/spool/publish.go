// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
)

// Source returns the sealed draft as something to push, whose upload session is
// kept in the journal. It is valid until the handle is closed. From now on the
// draft cannot be written to, until SetState(Failed) or SetState(Sealed) ends
// the try. Its Progress fills Info.Stored; whoever sets another calls it.
//
// Errors: fs.ErrInvalid if the draft is not sealed; ErrInUse after Publish.
func (d *Draft) Source() (backends.Source, error) {
	if err := d.live(); err != nil {
		return backends.Source{}, err
	}
	e := d.entry
	e.data.Lock()
	defer e.data.Unlock()
	rec := e.rec.Load()
	if e.moved {
		return backends.Source{}, e.writable()
	}
	if !rec.State.settled() || e.dirty.Load() {
		return backends.Source{}, fmt.Errorf("%w: draft %s is not sealed", fs.ErrInvalid, e.id)
	}
	e.lent = true
	size := e.size.Load()
	return backends.Source{
		Content:  content{d, size},
		Size:     size,
		Digest:   rec.Digest,
		Format:   rec.Target.Format,
		Modified: e.info().ModTime,
		Mode:     fs.FileMode(rec.Mode) & fs.ModePerm,
		Path:     e.dir.data(),
		Give:     true,
		Replaces: rec.Target.Replaces,
		Progress: e.stored.Store,
		Session:  session{e},
	}, nil
}

// content reads the draft as far as it was sealed.
type content struct {
	draft *Draft
	size  int64
}

func (c content) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, io.EOF
	}
	return c.draft.ReadAt(p, off)
}

// session keeps the state of an upload in the journal.
type session struct{ entry *entry }

func (s session) Load() []byte { return bytes.Clone(s.entry.rec.Load().Session) }

func (s session) Save(state []byte) error {
	if len(state) > maxSession {
		return fmt.Errorf("%w: an upload session of %d bytes", fs.ErrInvalid, len(state))
	}
	return s.entry.change(func(r *record) {
		r.Session, r.Stored = bytes.Clone(state), s.entry.stored.Load()
	})
}

// SetState records how publishing goes, durably: Publishing (which counts an
// attempt), Sealed to wait for another one, or Failed, which cause goes with. It
// holds in memory also where the local disk refuses.
//
// Errors: fs.ErrInvalid for another state, or if the draft is not sealed; the
// local disk's.
func (d *Draft) SetState(state State, cause error) error {
	if err := d.live(); err != nil {
		return err
	}
	e := d.entry
	e.data.Lock()
	defer e.data.Unlock()
	if !state.settled() || !e.rec.Load().State.settled() || e.dirty.Load() {
		return fmt.Errorf("%w: draft %s is %s, not to be set %s", fs.ErrInvalid, e.id, e.rec.Load().State, state)
	}
	if state != Publishing {
		e.lent = false
	}
	return e.remember(func(r *record) {
		if state == Publishing && r.State != Publishing {
			r.Attempts++
		}
		r.State, r.Error, r.Stored = state, "", e.stored.Load()
		if cause != nil {
			r.Error = cause.Error()
		}
	})
}

// Publish ends a draft that its registry has, as that version: move gets the data
// file's path and takes it away (into the cache); it may be nil. Then the draft is
// gone, durably. Handles that are open may read on, and Fork.
//
// Errors: fs.ErrInvalid if the draft is not sealed; ErrInUse if Publish was
// called already; what move returns (the draft is then as it was); the local disk's.
func (d *Draft) Publish(version string, move func(path string) error) error {
	if err := d.live(); err != nil {
		return err
	}
	e := d.entry
	if err := e.giveAway(version); err != nil {
		return err
	}
	if move != nil {
		if err := move(e.dir.data()); err != nil {
			e.data.Lock()
			e.moved = false
			e.data.Unlock()
			return err
		}
	}
	if err := e.drop(); err != nil {
		// A journal that says Publishing, without data, is dropped at the next start.
		e.spool.opts.Log.Warn("cannot remove a published draft", "draft", e.id, "err", err)
	}
	return nil
}

// giveAway stops all writing for good, and makes sure that the journal tells a
// draft whose data was moved away from one whose data was lost.
func (e *entry) giveAway(version string) error {
	e.data.Lock()
	defer e.data.Unlock()
	rec := e.rec.Load()
	switch {
	case e.moved:
		return e.writable()
	case !rec.State.settled() || e.dirty.Load():
		return fmt.Errorf("%w: draft %s is not sealed", fs.ErrInvalid, e.id)
	}
	if rec.State != Publishing {
		if err := e.change(func(r *record) { r.State, r.Error = Publishing, "" }); err != nil {
			return err
		}
	}
	e.journal.Lock()
	next := *e.rec.Load()
	next.Version = version
	e.rec.Store(&next)
	e.journal.Unlock()
	e.moved = true
	return nil
}

// Remove drops the draft and its data. It is gone for everyone at once, and
// durably; handles that are open go on with a file that has no name. After an
// error it cannot be opened any more, and Close of the last handle tries again.
func (d *Draft) Remove() error {
	if err := d.live(); err != nil {
		return err
	}
	return d.entry.drop()
}
