// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
)

// An Upload is the way of a draft to its registry, for its publisher.
type Upload struct{ *handle }

// Begin starts a try to publish a sealed draft, durably, and returns what is to be
// pushed, whose upload session is kept in the journal. The draft cannot be written to
// until End or Publish ends the try. The source is valid until the handle is closed. Its
// Progress fills Info.Stored; a caller that replaces it calls it in turn. So it does with
// Commit, after which the try cannot be stopped any more.
//
// Errors: fs.ErrInvalid if the draft is not sealed; ErrInUse after Publish; fs.ErrNotExist
// while it is withdrawn; the local disk's.
func (u Upload) Begin() (backends.Source, error) {
	if err := u.live(); err != nil {
		return backends.Source{}, err
	}
	e := u.entry
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
	switch state := e.rec.Load().State; {
	case e.withdrawn.Load():
		return backends.Source{}, errWithdrawn(e.id)
	case state == published:
		return backends.Source{}, e.writable()
	case !state.underWay(): // else it is an earlier try that goes on
		if err := e.change(func(r *record) { r.State, r.Error, r.Attempts = Publishing, "", r.Attempts+1 }); err != nil {
			return backends.Source{}, err
		}
	}
	rec, size := e.rec.Load(), e.size.Load()
	return backends.Source{
		Content:  sealedFile{Bytes(u), size},
		Size:     size,
		Digest:   rec.Digest,
		Format:   cmp.Or(e.content.format, rec.Target.Format),
		Modified: e.info().ModTime,
		Mode:     fs.FileMode(rec.Mode) & fs.ModePerm,
		Path:     e.dir.data(),
		Give:     true,
		Replaces: rec.Target.Replaces,
		Progress: e.stored.Store,
		Session:  session{e},
		Commit:   e.commit,
	}, nil
}

// commit is backends.Source.Commit. Errors: fs.ErrNotExist while the draft is withdrawn.
func (e *entry) commit() error {
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
	if e.withdrawn.Load() {
		return errWithdrawn(e.id)
	}
	return e.mark(func(r *record) { r.State = committed })
}

// A sealedFile reads the draft as far as it was sealed.
type sealedFile struct {
	Bytes
	size int64
}

func (s sealedFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	return s.Bytes.ReadAt(p, off)
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

// End ends a try that failed or was stopped, durably. With a cause the draft is Failed; without one it is
// Sealed, to wait for another try. It holds in memory also where the local disk refuses.
// A try that could not be begun may be ended, too.
//
// If the registry was told to publish the draft, whether it has is in doubt from then
// on, see Info.InDoubt, until Answered.
//
// Errors: fs.ErrInvalid if the draft is not sealed; the local disk's.
func (u Upload) End(cause error) error {
	if err := u.live(); err != nil {
		return err
	}
	e := u.entry
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
	if state := e.rec.Load().State; !state.settled() || state == published {
		return fmt.Errorf("%w: draft %s is %s, not on its way", fs.ErrInvalid, e.id, state.stored())
	}
	return e.end(cause)
}

// end is End; the caller holds content.mu.
func (e *entry) end(cause error) error {
	return e.remember(func(r *record) {
		r.InDoubt = r.InDoubt || r.State == committed
		r.State, r.Error, r.Stored = Sealed, "", e.stored.Load()
		if cause != nil {
			r.State, r.Error = Failed, cause.Error()
		}
	})
}

// Answered notes that the registry has not published the draft, for sure.
func (u Upload) Answered() {
	_ = u.entry.mark(func(r *record) { r.InDoubt = false }) // the state stays: no error
}

// Withdraw keeps the draft from being published until release is called: no try may begin,
// nor tell the registry to publish it. It is too late if a try has told the registry so and
// is not over.
//
// Errors: ErrInUse if it is withdrawn already.
func (u Upload) Withdraw() (tooLate bool, release func(), err error) {
	e := u.entry
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
	if e.withdrawn.Swap(true) {
		return false, nil, fmt.Errorf("%w: draft %s is being discarded already", ErrInUse, e.id)
	}
	return e.rec.Load().State == committed, func() { e.withdrawn.Store(false) }, nil
}

// Withdrawn returns why no try to publish the draft may begin.
// Errors: fs.ErrNotExist.
func (u Upload) Withdrawn() error {
	if u.entry.withdrawn.Load() {
		return errWithdrawn(u.entry.id)
	}
	return nil
}

// Publish ends a draft that its registry has, as that version: move gets the data
// file's path and takes it away (into the cache); it may be nil. Then the draft is
// gone, durably. Handles that are open may read on, and Fork.
//
// Errors: fs.ErrInvalid if the draft is not sealed; ErrInUse if Publish was
// called already; what move returns (the draft is then as it was); the local disk's.
func (u Upload) Publish(version string, move func(path string) error) error {
	if err := u.live(); err != nil {
		return err
	}
	e := u.entry
	if err := e.giveAway(version); err != nil {
		return err
	}
	if move != nil {
		if err := move(e.dir.data()); err != nil {
			return errors.Join(err, e.mark(func(r *record) { r.State = Publishing }))
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
	e.content.mu.Lock()
	defer e.content.mu.Unlock()
	switch state := e.rec.Load().State; {
	case state == published:
		return e.writable()
	case !state.underWay():
		if err := e.change(func(r *record) { r.State, r.Error = Publishing, "" }); err != nil {
			return err
		}
	}
	return e.mark(func(r *record) { r.State, r.Version = published, version })
}
