// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// AttrChange is what setattr changes; nil means not this.
type AttrChange struct {
	Size    *int64
	ModTime *time.Time
	Mode    *fs.FileMode
}

// SetAttr changes size, time and permissions as for any file. A size that is set after
// the file was published is a write by a process that still has it open.
//
// Errors: the local disk's; ErrRetry for a size if no process has.
func (d *Draft) SetAttr(ctx context.Context, change AttrChange) error {
	if change.Size != nil && *change.Size != d.Attr().Size {
		if err := d.lockData(ctx); err != nil {
			return err
		}
	} else {
		d.mu.Lock()
	}
	defer d.mu.Unlock()
	if d.data == nil || d.committed {
		if change.Size != nil && *change.Size != d.attr.Size {
			return ErrRetry
		}
		return nil
	}
	if change.Size != nil && *change.Size != d.data.Size() {
		if err := d.truncate(*change.Size); err != nil {
			return err
		}
		if d.loc.temporary && len(d.writers) == 0 { // truncate(2): nobody will close it
			if err := d.data.Keep(damage(d.data, nil)); err != nil {
				return err
			}
		}
	}
	if change.ModTime == nil && change.Mode == nil {
		return nil
	}
	if change.ModTime != nil {
		d.attr.ModTime = *change.ModTime
	}
	if change.Mode != nil {
		d.attr.Mode = max(*change.Mode&fs.ModePerm, 0o200) // 0 stands for "not set" in the journal
	}
	return d.data.SetAttr(d.attr.ModTime, uint32(d.attr.Mode))
}

// truncate needs mu. Truncating to nothing clears an earlier failure.
func (d *Draft) truncate(size int64) error {
	if err := d.data.Truncate(size); err != nil {
		return err
	}
	d.err, d.dirty = nil, true
	if size == 0 {
		d.broken = false
	}
	d.attr.ModTime = time.Now()
	return nil
}

// SetAttr accepts the times and permissions that copying tools set after close, and
// changes nothing: they are the registry's. A size must be the one that the image has.
//
// Errors: backends.ErrReadOnly; backends.ErrNotAllowed for a size.
func (i *Image) SetAttr(change AttrChange) error {
	if _, err := i.fs.writableRemote(i.remote); err != nil {
		return err
	}
	if change.Size != nil && *change.Size != i.size.Load() {
		return fmt.Errorf("%w: an image's size", backends.ErrNotAllowed)
	}
	return nil
}
