// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// Open makes a spool of dir, created if missing (0700). A draft that a
// crash left in state Writing becomes Incomplete; one left Sealed or Publishing
// becomes Sealed if it was to be published in the background, else Failed, which
// is what its writer was told. One whose journal cannot be read, or does not fit
// its data, is Incomplete with the reason in Error and is kept until it is
// discarded. Incomplete drafts older than KeepBad are dropped, see Sweep.
//
// Errors: those of the local disk. A single bad draft is no error.
func Open(dir string, opts Options) (*Spool, error) {
	if opts.Reserve == 0 {
		opts.Reserve = defaultReserve
	}
	if opts.KeepBad == 0 {
		opts.KeepBad = defaultKeepBad
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, diskError("open", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, diskError("open", err)
	}
	s := &Spool{dir: dir, opts: opts, drafts: map[string]*entry{}}
	s.headroom = headroom{dir: dir, reserve: max(opts.Reserve, 0)}
	if err := s.recover(); err != nil {
		return nil, err
	}
	s.Sweep()
	for _, e := range s.drafts {
		if info := e.info(); info.State == Kept {
			e.warn(info)
		}
	}
	return s, nil
}

// Close closes all drafts; those in state Writing become Incomplete. What was
// sealed stays. Methods of the spool and its drafts give ErrClosed afterwards.
func (s *Spool) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	open := map[*entry]*os.File{}
	s.mu.Lock()
	for _, e := range s.drafts {
		if file := e.file.current(); file != nil {
			open[e] = file
		}
	}
	s.mu.Unlock()
	var errs []error
	for e, file := range open {
		e.save()
		errs = append(errs, diskError("close", file.Close()), e.abandon())
	}
	return errors.Join(errs...)
}

// Create starts an empty draft, whose handle the caller closes.
// Errors: ENOSPC and its like; ErrClosed.
func (s *Spool) Create(target Target) (*Draft, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	if err := s.headroom.take(draftRoom); err != nil {
		return nil, err
	}
	now := time.Now()
	id := now.UTC().Format("20060102-150405.000000") + "-" + randomHex()
	e := newEntry(s, id)
	rec := &record{Info: Info{ID: id, Target: target, State: Writing, Created: now, Changed: now}}
	e.rec.Store(rec)
	if err := os.Mkdir(string(e.dir), 0o700); err != nil {
		return nil, diskError("create", err)
	}
	file, err := os.OpenFile(e.dir.data(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = e.dir.write(rec, false)
	}
	if err != nil {
		file.Close()
		return nil, diskError("create", errors.Join(err, os.RemoveAll(string(e.dir))))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.file.file, e.file.uses, e.refs, e.busy = file, 1, 1, 1
	s.drafts[id] = e
	return newDraft(e, false), nil
}

func randomHex() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Draft opens the draft with that ID again; all its handles share its state. The caller closes the handle.
// Errors: fs.ErrNotExist; ErrClosed; the local disk's.
func (s *Spool) Draft(id string) (*Draft, error) {
	d, err := s.Standby(id)
	if err != nil {
		return nil, err
	}
	return d.held()
}

// Standby is Draft with a handle that is idle.
func (s *Spool) Standby(id string) (*Draft, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.drafts[id]
	if e == nil || e.removed.Load() {
		return nil, errNoDraft(id)
	}
	e.refs++
	return newDraft(e, true), nil
}

// Sweep drops the drafts that are not whole images, that nobody writes, and that
// nobody touched for KeepBad. It returns how many. It warns of the files that are
// kept for as long under a name that is no image's: they take room, and a user may
// wait for them. Open does so too, and warns of all; a long-running process
// calls it now and then.
func (s *Spool) Sweep() int {
	var n int
	for _, info := range s.Drafts() {
		if time.Since(info.Changed) < s.opts.KeepBad {
			continue
		}
		s.mu.Lock()
		e := s.drafts[info.ID]
		s.mu.Unlock()
		switch {
		case e == nil || e.rec.Load().Orphan:
		case info.State == Kept:
			e.warn(info)
		case info.State == Incomplete && s.keepWhole(info.ID):
			e.warn(info)
		case info.State == Incomplete && s.Discard(info.ID) == nil:
			s.opts.Log.Warn("dropped an upload that was never completed", "draft", info.ID, "to", info.Target.Remote,
				"file", info.Target.File, "image", info.Target.Ref.String(), "bytes", info.Size, "error", info.Error)
			n++
		}
	}
	return n
}

// keepWhole keeps a draft that is a whole image by its bytes, whatever became of
// the program that wrote it.
func (s *Spool) keepWhole(id string) bool {
	if s.opts.Whole == nil {
		return false
	}
	d, err := s.Draft(id)
	if err != nil {
		return false
	}
	defer d.Close() //nolint:errcheck // only read
	if !s.opts.Whole(d, d.Size()) {
		return false
	}
	if err := d.Keep(nil); err != nil {
		s.opts.Log.Warn("cannot note that a draft is kept", "draft", id, "err", err)
	}
	return true
}

// warn tells once of a file that is kept.
func (e *entry) warn(info Info) {
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
