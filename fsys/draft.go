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

// accepted needs mu. It reports whether the draft is sealed and queued: it counts as
// published, but only we have it.
func (d *Draft) accepted() bool { return d.committed && !d.published() }

// over needs mu. It reports whether the name means something else now.
func (d *Draft) ended() bool { return d.removed || d.published() || d.expired() }

// lapsed needs mu. While somebody writes, it is a file all the same.
func (d *Draft) expired() bool {
	if d.data == nil || len(d.writers) > 0 || len(d.exclusive) > 0 {
		return false
	}
	return d.data.Gone() || d.abandoned() || d.accepted() && !d.fs.cat.Pending(d.data.Info().ID)
}

// abandoned needs mu. It reports whether who was to open the draft never came.
func (d *Draft) abandoned() bool { return !d.opened && len(d.claims) > 0 && !d.claimed() }

// lapse reports whether the draft stands for nothing any more, though nobody removed
// it here. Somebody discarded it; or it was accepted and is not on its way since: the
// registry has it, or has refused it, and then its data is kept in the journal.
// Either way the name means what the registry has.
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

// claimTime is how long a draft waits for the caller who was told ErrRetry.
const claimTime = 10 * time.Second

// writtenBy reports whether the caller has the draft open for writing, or is to
// open it: for its process the name means the draft then.
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

// counts reports whether the draft hides an image of the same name from everybody.
func (d *Draft) shadows() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.ended() && (d.loc.temporary || d.accepted())
}

// visible reports whether the draft is shown where no image has its name: while
// it is written, if it counts as published, or if its name is temporary. One
// that could not be published is in the journal, not in the tree: nobody shall
// take a part of an image for the whole.
func (d *Draft) visible() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.ended() && (d.loc.temporary || d.accepted() || len(d.writers) > 0 && d.err == nil)
}

// busy reports whether nobody else may write the file: somebody does, or what it
// holds was promised to be published and is not yet.
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

// listedName returns the draft's name, that of an image as images are listed,
// whatever it was created as.
func (d *Draft) listedName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ref, format, err := parseFile(d.name); err == nil && !d.loc.temporary {
		return d.fs.opts.Names.fileName(ref, format)
	}
	return d.name
}

// hidesImage reports whether the draft stands for the image of its name.
func (d *Draft) shadowsListed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepted() && !d.ended()
}

// stands returns the directory and the name of the draft.
func (d *Draft) position() (in *Dir, name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Dir{fs: d.fs, remote: d.loc.remote, collection: d.loc.collection, tool: d.loc.tool}, d.name
}

// closing needs mu. It reports whether all who write have closed the file, though
// the kernel has not told us yet that it was the last time.
func (d *Draft) closing() bool {
	for h := range d.writers {
		if !h.closing {
			return false
		}
	}
	return len(d.writers) > 0
}

// due needs mu. It reports whether there is something to publish.
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
	if d.accepted() { // it counts as an image, which whoever may read it may run
		a.Mode |= a.Mode & 0o444 >> 2
	}
	if d.data != nil {
		a.Size = d.data.Size()
	}
	return a
}

// change is that of what stood there under that name, or one of its others. What is
// in a tool's directory the kernel asks for each time.
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

// changed tells who watches that the draft's name means something else.
func (d *Draft) changed() {
	d.mu.Lock()
	p, name := d.loc, d.name
	d.mu.Unlock()
	d.fs.notify(p.change(name))
}

// lock takes the draft's turn: publishing and renaming exclude each other, and
// writing.
func (d *Draft) lock(ctx context.Context) error {
	select {
	case d.exclusive <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Draft) unlock() { <-d.exclusive }

// patience is how long a second writer waits for the first. The kernel tells us
// that a file was closed some time after close(2) has returned: without patience
// a copy right after one that failed would find it in use.
const writerWait = 2 * time.Second

// wait waits until nobody writes the file, as long as patience lasts.
// Errors: ErrBusy if somebody still does; ctx's.
func (d *Draft) awaitNotBusy(ctx context.Context) error {
	for deadline := time.Now().Add(writerWait); d.busy(); {
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%s: %w", d.fileName(), ErrBusy)
		}
		d.mu.Lock()
		idle := d.idle
		d.mu.Unlock()
		// What is queued, claimed or being renamed does not tell when that is over.
		if err := d.awaitIdle(ctx, idle, min(time.Until(deadline), pollInterval)); err != nil {
			return err
		}
	}
	return nil
}

// lookAgain is how long wait waits at most before it looks again.
const pollInterval = 20 * time.Millisecond

// awaitWriters waits until nobody writes any more, as long as patience lasts.
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

// awaitEnd waits for the end of a file of which a descriptor was just closed: when a
// container is over, its overlay is unmounted and what it wrote is published a moment
// later, and is to be there for the next one. It reports whether the file's name means
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

// wake tells those who wait to write that the last writer is done.
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
