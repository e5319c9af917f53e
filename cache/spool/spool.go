// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// Errors of this package; those of backends pass through.
var (
	// ErrInUse: a draft is open, or on its way to its registry.
	ErrInUse = errors.New("in use")
	// ErrClosed: the spool or the handle was closed.
	ErrClosed = errors.New("spool: closed")
)

// A Spool is a directory of drafts: files being copied in, and finished ones
// that are not in their registry yet. Each has a folder with the data and a
// meta.json, which is the journal: what the spool says is durable is so after
// power loss. Methods may be called from many goroutines at once; one process at
// a time owns the directory.
type Spool struct {
	dir    string
	opts   Options
	room   room
	closed atomic.Bool

	mu     sync.Mutex // guards drafts, and refs, busy, uses and file of each of them
	drafts map[string]*entry
}

// Options tune a Spool. The zero value has the defaults.
type Options struct {
	Reserve int64         // bytes of the disk to leave free: beyond it WriteAt gives ENOSPC; default 64 MiB; negative: none
	KeepBad time.Duration // incomplete drafts are dropped this long after the last change; default 24 h
	// Whole reports whether an incomplete draft is a whole image all the same: no timer drops one. Nil: none is.
	Whole func(r io.ReaderAt, size int64) bool
	Log   *slog.Logger
}

const (
	defaultReserve = 64 << 20
	defaultKeepBad = 24 * time.Hour
	draftRoom      = 16 << 10 // bytes that the folder and the journal of a draft take
)

// goneSuffix marks the folder of a draft that is being deleted: the rename is
// the moment from which the draft does not exist, whatever a crash leaves behind.
const goneSuffix = ".gone"

// Open makes a spool of dir, created if missing (0700). A draft that a
// crash left in state Writing becomes Incomplete; one left Sealed or Publishing
// becomes Sealed if it was to be published in the background, else Failed, which
// is what whoever copied it in was told. One whose journal cannot be read, or does not fit
// its data, is Incomplete with the reason in Error and is kept until somebody
// discards it. Incomplete drafts older than KeepBad are dropped, see Sweep.
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
	s.room = room{dir: dir, reserve: max(opts.Reserve, 0)}
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
		if e.file != nil {
			open[e] = e.file
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
	if err := s.room.take(draftRoom); err != nil {
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
	e.file, e.refs, e.busy, e.uses = file, 1, 1, 1
	s.drafts[id] = e
	return &Draft{entry: e}, nil
}

func randomHex() string {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Drafts returns all records, oldest first.
func (s *Spool) Drafts() []Info {
	s.mu.Lock()
	var infos []Info
	for _, e := range s.drafts {
		if !e.doomed.Load() {
			infos = append(infos, e.info())
		}
	}
	s.mu.Unlock()
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.ID, b.ID) })
	return infos
}

// Held reports whether somebody has the draft with that ID open and is not idle.
func (s *Spool) Held(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.drafts[id]
	return e != nil && e.busy > 0
}

// Draft opens the draft with that ID again, sharing state with whoever has it
// open. The caller closes the handle.
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
	if e == nil || e.doomed.Load() {
		return nil, errNoDraft(id)
	}
	e.refs++
	return &Draft{entry: e, idle: true}, nil
}

// Discard drops a draft and its data, durably.
// Errors: ErrInUse while somebody has it open and is not idle; fs.ErrNotExist; the local disk's.
func (s *Spool) Discard(id string) error {
	s.mu.Lock()
	e := s.drafts[id]
	busy := e != nil && e.busy > 0
	if e != nil && !busy {
		e.doomed.Store(true) // from here on nobody can open it
	}
	s.mu.Unlock()
	switch {
	case e == nil:
		return errNoDraft(id)
	case busy:
		return fmt.Errorf("%w: draft %s is open", ErrInUse, id)
	}
	err := e.drop()
	s.mu.Lock()
	file := e.file
	s.mu.Unlock()
	if file != nil {
		freeData(file)
	}
	return err
}

// Sweep drops the drafts that are not whole images, that nobody writes, and that
// nobody touched for KeepBad. It returns how many. It warns of the files that are
// kept for as long under a name that is no image's: they take room, and somebody may
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

func errNoDraft(id string) error { return backends.NotFound("no draft %q", id) }

// diskError is the border to the disk: the errno that callers act on stay,
// and a missing file of our own must not read as "no such image".
func diskError(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("spool: %s: %w", op, errno)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("spool: %s: %w", op, errors.ErrUnsupported)
	}
	return fmt.Errorf("spool: %s: %v", op, err)
}
