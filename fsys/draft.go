// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"fmt"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
)

func (f *FS) newDraft(data *spool.Draft, p location, name string) *Draft {
	id := inode("draft", data.Info().ID)
	return &Draft{
		fs: f, id: id, ino: id, exclusive: make(chan struct{}, 1),
		data: data, loc: p, name: name, writers: make(map[*File]struct{}),
		attr: Attr{Mode: 0o755, ModTime: time.Now()},
	}
}

// published needs mu. It reports whether the name means the image now.
func (d *Draft) published() bool { return d.committed && (d.data == nil || d.data.Published()) }

// accepted needs mu. It reports whether the draft is sealed and queued: it is shown as
// published, but its bytes are only here.
func (d *Draft) accepted() bool { return d.committed && !d.published() }

// ended needs mu. It reports whether the name means something else now.
func (d *Draft) ended() bool { return d.removed || d.published() || d.expired() }

// expired needs mu; see expire. A draft that is being written does not expire.
func (d *Draft) expired() bool {
	if d.data == nil || len(d.writers) > 0 || len(d.exclusive) > 0 {
		return false
	}
	return d.data.Gone() || d.abandoned() || d.accepted() && !d.fs.uploads.Pending(d.data.Info().ID)
}

// abandoned needs mu. It reports whether the draft was made for a caller that never
// opened it.
func (d *Draft) abandoned() bool { return !d.opened && len(d.claims) > 0 && !d.claimed() }

// expire reports whether the draft is no file any more though it was not removed here:
// it was discarded, or its upload has ended. If the registry refused it, its data stays
// in the journal. In each case the name means what the registry has.
func (d *Draft) expire() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.published() {
		return true
	}
	lapsed := d.expired()
	if lapsed && !d.removed && d.abandoned() {
		if err := d.data.Remove(); err != nil {
			d.fs.opts.Log.Warn("removing a draft that nobody opened", "file", d.name, "err", err)
		}
	}
	d.removed = d.removed || lapsed
	return lapsed
}

// claimed needs mu.
func (d *Draft) claimed() bool {
	for _, at := range d.claims {
		if time.Since(at) < claimTime {
			return true
		}
	}
	return false
}

// claim reserves the draft for the caller's next lookup and opening.
func (d *Draft) claim(who Caller) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.claims == nil {
		d.claims = make(map[uint32]time.Time)
	}
	d.claims[who.Thread] = time.Now()
}

// claimTime is how long a draft is kept for the caller that got ErrRetry.
const claimTime = 10 * time.Second

// writtenBy reports whether the caller has the draft open for writing, or is about to
// open it: for its process the name means the draft.
func (d *Draft) writtenBy(who Caller) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended() {
		return false
	}
	if at, ok := d.claims[who.Thread]; ok && time.Since(at) < claimTime {
		return true
	}
	for h := range d.writers {
		if who.Process != 0 && h.opener == who.Process && d.err == nil {
			return true
		}
	}
	return false
}

// shadows reports whether the draft hides an image of the same name from everybody.
func (d *Draft) shadows() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.ended() && (d.loc.temporary || d.accepted())
}

// visible reports whether the draft is shown where no image has its name: while it is
// written, while it is queued, or if its name is temporary. One that could not be
// published is in the journal and not in the tree, so that nobody takes a part of an
// image for the whole.
func (d *Draft) visible() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.ended() && (d.loc.temporary || d.accepted() || len(d.writers) > 0 && d.err == nil)
}

// busy reports whether the file cannot be replaced now: it is being written, or queued.
func (d *Draft) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.ended() && (len(d.writers) > 0 || d.accepted() || d.claimed() || len(d.exclusive) > 0)
}

func (d *Draft) fileName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name
}

// listedName returns the draft's name; if it is to be an image, the name as images are
// listed, whichever spelling it was created with.
func (d *Draft) listedName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ref, format, err := parseFile(d.name); err == nil && !d.loc.temporary {
		return d.fs.opts.Names.fileName(ref, format)
	}
	return d.name
}

// shadowsListed reports whether the draft is listed in place of the image of its name.
func (d *Draft) shadowsListed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepted() && !d.ended()
}

// position returns the directory and the name of the draft.
func (d *Draft) position() (in *Dir, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Dir{fs: d.fs, remote: d.loc.remote, collection: d.loc.collection, tool: d.loc.tool}, d.name
}

// closing needs mu. It reports whether each writer has closed the file once, though the
// kernel has not sent the last RELEASE yet.
func (d *Draft) closing() bool {
	for h := range d.writers {
		if !h.closing {
			return false
		}
	}
	return len(d.writers) > 0
}

// due needs mu. It reports whether a close has something to publish.
func (d *Draft) due() bool {
	return d.dirty && d.err == nil && !d.ended() && !d.accepted() && !d.loc.temporary && d.data.Size() > 0
}

// Generation tells drafts apart that have one inode number.
func (d *Draft) Generation() uint64 { return d.id }

// Attr implements Node.
func (d *Draft) Attr() Attr {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.attr
	a.Ino, a.Changes = d.ino, true
	if d.accepted() { // it is shown as an image, which can be run by those who can read it
		a.Mode |= a.Mode & 0o444 >> 2
	}
	if d.data != nil {
		a.Size = d.data.Size()
	}
	return a
}

// change returns the Change for a draft that was at p under that name. The kernel caches
// nothing of a tool's directory.
func (p location) change(name string) Change {
	c := Change{Remote: p.remote, Collection: p.collection}
	switch ref, _, err := parseFile(name); {
	case p.tool != "":
	case p.temporary || err != nil:
		c.Names = []string{name}
	default:
		c.Names = namesOf(ref)
	}
	return c
}

// changed notifies the watchers that the draft's name means something else.
func (d *Draft) changed() {
	d.mu.Lock()
	p, name := d.loc, d.name
	d.mu.Unlock()
	d.fs.notify(p.change(name))
}

// lock takes Draft.exclusive.
func (d *Draft) lock(ctx context.Context) error {
	select {
	case d.exclusive <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Draft) unlock() { <-d.exclusive }

// writerWait is how long a second writer waits for the first. The kernel sends RELEASE
// some time after close(2) has returned, so a copy right after one that failed would
// otherwise find the file in use.
const writerWait = 2 * time.Second

// awaitNotBusy waits until the draft is not busy, for writerWait at most.
// Errors: ErrBusy if it still is; ctx's.
func (d *Draft) awaitNotBusy(ctx context.Context) error {
	for deadline := time.Now().Add(writerWait); d.busy(); {
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%s: %w", d.fileName(), ErrBusy)
		}
		d.mu.Lock()
		idle := d.idle
		d.mu.Unlock()
		// Being queued, claimed or renamed ends without a signal.
		if err := d.awaitIdle(ctx, idle, min(time.Until(deadline), pollInterval)); err != nil {
			return err
		}
	}
	return nil
}

// pollInterval is how often a state without a signal is looked at.
const pollInterval = 20 * time.Millisecond

// awaitWriters waits for the last close for writing, for writerWait at most.
// Errors: ctx's.
func (d *Draft) awaitWriters(ctx context.Context) error {
	d.mu.Lock()
	idle := d.idle
	d.mu.Unlock()
	if idle == nil {
		return nil
	}
	return d.awaitIdle(ctx, idle, writerWait)
}

func (d *Draft) awaitIdle(ctx context.Context, idle chan struct{}, most time.Duration) error {
	if !backends.Pause(ctx, most, idle) {
		return ctx.Err()
	}
	return nil
}

// awaitEnd waits for the last close of a file of which a descriptor was just closed.
// When a container ends, its overlay is unmounted and the image is published a moment
// later; the next container must see it. It reports whether the file's name means
// something else now.
func (d *Draft) awaitEnd(ctx context.Context) (over bool, err error) {
	d.mu.Lock()
	idle, most := d.idle, writerWait-time.Since(d.flushed)
	d.mu.Unlock()
	if idle == nil || most <= 0 {
		return false, nil
	}
	err = d.awaitIdle(ctx, idle, most)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.published(), err
}

// signalIdle wakes the waiters once the last writer is done.
func (d *Draft) signalIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.writers) == 0 && d.idle != nil {
		close(d.idle)
		d.idle = nil
	}
}

// release gives the data back to the spool, with the last handle.
func (d *Draft) release() {
	d.mu.Lock()
	data := d.data
	if d.handles > 0 || data == nil {
		d.mu.Unlock()
		return
	}
	d.attr.Size, d.data = data.Size(), nil
	d.mu.Unlock()
	if err := data.Close(); err != nil {
		d.fs.opts.Log.Warn("closing a draft", "file", d.name, "error", err)
	}
}
