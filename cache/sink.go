// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"github.com/sregfs/sregfs/cache/fetch"
)

// A sink is where the download of a blob writes.
type sink struct{ d *data }

// WriteAt writes to the file; when the disk is full it evicts and tries again.
// Errors: fetch.ErrNoRoom; those of the local disk.
func (s sink) WriteAt(p []byte, off int64) (int, error) {
	d, c := s.d, s.d.item.cache
	n, err := d.stored.written.WriteAt(p, off)
	if isFull(err) && c.evictFor(int64(len(p)), s.d.inUse()) {
		n, err = d.stored.written.WriteAt(p, off)
	}
	switch {
	case err == nil:
		c.grew(int64(len(p)))
	case isFull(err):
		c.opts.Log.Warn("no room for the image cache", "dir", c.dir, "err", err)
		return n, fetch.ErrNoRoom
	}
	return n, localError("write", err)
}

// Reserve makes sure that n bytes may be written. Errors: fetch.ErrNoRoom.
func (s sink) Reserve(n int64) error {
	c := s.d.item.cache
	if c.fits(n) {
		return nil
	}
	if c.trim(n); c.fits(n) {
		return nil
	}
	if s.d.inUse() && c.abandonFor(n) && c.fits(n) {
		return nil
	}
	return fetch.ErrNoRoom
}

// Complete notes that a chunk can be read.
func (s sink) Complete(chunk int64) { s.d.stored.add(chunk) }

// Changed makes the committer look.
func (s sink) Changed() { s.d.notifyCommitter() }

// newDownload returns the download of a blob that is not whole.
func (d *data) newDownload() *fetch.Download {
	c := d.item.cache
	return fetch.New(d.ctx, fetch.Options{
		Size: d.size, Have: d.stored.have, Sink: sink{d}, Log: c.opts.Log, Go: c.spawn, InUse: d.inUse,
		NoBackground: c.opts.NoBackground, Streams: c.opts.Streams,
		Delay: c.opts.FillDelay, Patience: c.opts.Patience, Probe: d.hint,
	})
}

// inUse reports whether somebody has the blob open.
func (d *data) inUse() bool { return d.item.open(d) }
