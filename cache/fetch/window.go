// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"sync"
	"time"
)

const (
	maxWindow = 16 << 20 // fetched ahead of a sequential reader
	minPiece  = 1 << 20  // of one request for a reader, where so much is missing: 8 ms at 1 Gbit/s
	maxPiece  = 4 << 20  // of one request for a reader: a window is fetched in parallel pieces
	// pieceTime is how long one request for a reader takes, where minPiece would take
	// longer; reachTime how long what is fetched ahead of him.
	pieceTime = 50 * time.Millisecond
	reachTime = time.Second
	slack     = 4 << 20 // the kernel's read-ahead comes out of order: still sequential
	// Who has read so much in sequence wants the whole image: from its start, and
	// from anywhere. Who mounts or inspects one reads less, the kernel's first
	// read-ahead included.
	allFromStart = 1 << 20
	allAnywhere  = 8 << 20
)

// A Window watches one reader and tells how far to fetch ahead of its reads: nothing at
// first, then as much as was read in sequence. The zero value is ready. For concurrent
// use.
type Window struct {
	// Quiet says that the reader only looks into the blob: its reads do not make the
	// rest come in. Set it before the first read.
	Quiet bool

	mu    sync.Mutex // guards the fields below
	first int64      // where the sequence began
	next  int64      // where a sequential read would begin
	run   int64      // bytes read in sequence
	asked int64      // where what was asked for ahead ends
}

// note takes a read of [off, end) into account. It returns up to where to fetch ahead,
// by no more than most, or end if there is nothing to do now.
func (w *Window) note(off, end, most int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if off > w.next+slack || off < w.next-slack {
		w.first, w.next, w.run, w.asked = off, end, 0, 0
		return end
	}
	if end > w.next {
		w.run += end - max(off, w.next)
		w.next = end
	}
	size := int64(0)
	for s := int64(minPiece); s <= min(w.run, most); s *= 2 {
		size = s
	}
	// Half a window at a time, so that requests do not get small.
	if ahead := end + size; ahead > w.asked && ahead-max(w.asked, end) >= size/2 && size > 0 {
		w.asked = ahead
		return ahead
	}
	return end
}

// wantsAll reports whether the reader seems to read all of the blob.
func (w *Window) wantsAll() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.run >= allAnywhere || w.first == 0 && w.next >= allFromStart
}
