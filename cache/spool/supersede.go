// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"os"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// Copies that fail, are cut or interrupted leave their drafts: what they hold may be
// all that somebody has. Five tries of a large image must not fill the disk, though.

// Supersede drops the older drafts for the same name which this one makes useless:
// those that were cut at once, and once this one is sealed those that were not
// published either. What somebody has open stays.
func (d *Draft) Supersede() {
	by := d.entry
	for _, old := range by.spool.Drafts() {
		if by.supersedes(old) && by.spool.Discard(old.ID) == nil {
			by.spool.opts.Log.Info("dropped an older copy that was not published", "draft", old.ID,
				"image", old.Target.Ref.String(), "bytes", old.Size, "newer", by.id)
		}
	}
}

func (e *entry) supersedes(old Info) bool {
	return e.useless(old, e.rec.Load().State.settled())
}

// useless reports whether an older draft for the same name is worth nothing, now or
// when this one is whole.
func (e *entry) useless(old Info, whole bool) bool {
	t := e.rec.Load().Target
	if t.Ref == (backends.Ref{}) || old.ID == e.id || old.Target.Remote != t.Remote || old.Target.Ref != t.Ref {
		return false
	}
	if old.ID > e.id && t.Follows != old.ID { // created later
		return false
	}
	switch old.State {
	case Incomplete:
		return !e.spool.orphan(old.ID)
	case Sealed, Failed, Kept: // who copied in what is queued was told that it is safe
		return whole && !old.Queued()
	}
	return false
}

// orphan reports whether only a person may drop that draft.
func (s *Spool) orphan(id string) bool {
	s.mu.Lock()
	e := s.drafts[id]
	s.mu.Unlock()
	return e == nil || e.rec.Load().Orphan
}

// withRoom does write, and again while it fails for want of room and something can
// be given back.
func (e *entry) withRoom(write func() error) error {
	err := write()
	for (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)) && e.reclaim() {
		err = write()
	}
	return err
}

// reclaim drops the oldest draft that was cut, or failed and is being copied anew.
func (e *entry) reclaim() bool {
	s := e.spool
	for _, old := range s.Drafts() {
		failed := (old.State == Failed || old.State == Sealed) && e.useless(old, true)
		if !failed && (old.State != Incomplete || s.orphan(old.ID)) || s.Discard(old.ID) != nil {
			continue
		}
		_ = disk.SyncDir(s.dir) // some disks give room back only then
		s.opts.Log.Warn("no room: dropped a copy that was not whole or failed", "draft", old.ID,
			"remote", old.Target.Remote, "image", old.Target.Ref.String(), "file", old.Target.File, "bytes", old.Size)
		return true
	}
	return false
}

// freeData gives the room of a file back that has no name any more, though handles
// are open.
func freeData(file *os.File) {
	if info, err := file.Stat(); err == nil && disk.Names(info) == 0 {
		_ = file.Truncate(0)
	}
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
