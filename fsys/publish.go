// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"io/fs"

	"github.com/sregfs/sregfs/cache/spool"
)

// lock takes the draft's turn: publishing and renaming exclude each other, and
// writing.
func (d *Draft) lock(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Draft) unlock() { <-d.turn }

// errWriteFailed is why a file is not published that lacks bytes somebody wrote.
var errWriteFailed = errors.New("a write to the file failed before: it is not whole")

// publish publishes the draft where it stands.
func (d *Draft) publish(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.unlock()
	return d.publishLocked(ctx)
}

// publishLocked needs the turn. mu is not held while bytes travel.
func (d *Draft) publishLocked(ctx context.Context) error {
	d.mu.Lock()
	data, broken, before := d.data, d.broken, d.err
	skip := data == nil || d.over() || !d.dirty
	d.mu.Unlock()
	if skip || before != nil {
		return before // somebody else's turn came first
	}
	var err error
	if broken {
		err = errWriteFailed
	} else {
		err = d.fs.uploads.Publish(ctx, data)
	}
	d.settle(data, err)
	return err
}

// lockData takes mu when the data may be changed: what is being published is waited
// for, and what was published goes on in a copy if somebody has it open for writing.
// Whatever it returns but nil, mu is not held.
func (d *Draft) lockData(ctx context.Context) error {
	d.mu.Lock()
	for d.data != nil && (len(d.turn) > 0 || d.promised && len(d.writers) > 0) {
		d.mu.Unlock()
		if err := d.resume(ctx); err != nil {
			return err
		}
		d.mu.Lock()
	}
	return nil
}

// resume readies a published file for more writes. Its bytes are the registry's
// now, or wait in the queue, so it goes on with a copy of them, which is to replace
// what this very file published and nothing else: no other policy need allow it.
func (d *Draft) resume(ctx context.Context) error {
	if err := d.lock(ctx); err != nil {
		return err
	}
	defer d.unlock()
	d.mu.Lock()
	old, done := d.data, d.promised
	d.mu.Unlock()
	if !done || old == nil {
		return nil
	}
	next, err := old.Fork(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.data, d.promised = next, false
	if d.handles > 0 {
		err = next.KeepOpen()
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.fs.place(d); err != nil {
		d.fs.opts.Log.Warn("dropping a draft", "file", d.currentName(), "err", err)
	}
	if err := old.Close(); err != nil {
		d.fs.opts.Log.Warn("closing a draft", "file", d.currentName(), "err", err)
	}
	return nil
}

// settle keeps what publishing came to.
func (d *Draft) settle(data *spool.Draft, err error) {
	d.mu.Lock()
	d.err = err
	if err == nil {
		d.dirty, d.promised, d.attr.Size = false, true, data.Size()
	}
	d.mu.Unlock()
	switch {
	case err != nil:
	case data.Info().Queued():
		if err := d.fs.place(d); err != nil { // as the last one
			d.fs.opts.Log.Warn("dropping a draft", "file", d.currentName(), "err", err)
		}
		d.changed()
	default:
		d.fs.forget(d)
	}
}

// restore puts the files of an earlier process back into the tree: what was accepted
// is there to those who copied it in, whether or not the registry has it yet, and
// what has a temporary name is a file until somebody renames or removes it. Of
// several files of one name the newest counts.
func (f *FS) restore() {
	for _, data := range f.uploads.Standing() {
		info := data.Info()
		dir := &Dir{fs: f, remote: info.Target.Remote, collection: info.Target.Ref.Collection}
		name := f.opts.Names.fileName(info.Target.Ref, info.Target.Format)
		if info.Target.File != "" {
			var err error
			if dir, name, err = f.stagedAt(info.Target); err != nil {
				f.opts.Log.Warn("a file has no place in the tree", "remote", info.Target.Remote, "file", info.Target.File, "err", err)
				data.Close() //nolint:errcheck // it stays in the spool
				continue
			}
		}
		d := f.newDraft(data, dir.place(name), name)
		d.promised, d.attr.ModTime = info.Target.File == "", info.ModTime
		if mode := fs.FileMode(info.Mode) & fs.ModePerm; mode != 0 {
			d.attr.Mode = mode
		}
		for _, older := range f.drafts[d.place] {
			older.release()
		}
		f.drafts[d.place] = []*Draft{d}
		data.Idle()
	}
}

// changed tells who watches that the draft's name means something else.
func (d *Draft) changed() {
	d.mu.Lock()
	p, name := d.place, d.name
	d.mu.Unlock()
	d.fs.tell(p.change(name))
}
