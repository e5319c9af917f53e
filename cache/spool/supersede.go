// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
)

// Copies that fail or are interrupted leave their drafts, because their bytes may be all
// that is left. But five tries to copy a large image must not fill the disk, so older drafts
// of a name are dropped.

// useless reports whether an older draft for the same name is not needed any more, now
// or when this one is whole.
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
	case Sealed, Failed, Kept: // the writer of what is queued was told that it is safe
		return whole && !old.Queued()
	}
	return false
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
