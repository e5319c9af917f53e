// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/cache/chunks"
)

// hashStep is how many bytes are hashed before the committer looks whether it is time
// to make something durable.
const hashStep = 8 << 20

// A check finds out whether the bytes of a blob are right, and knows which of them
// readers got before. The committer hashes; readers ask what they may have.
type check struct {
	digest string  // that all must have; "" if there is none
	hash   *hasher // of the committer alone; nil without a digest that can be computed
	served *served // nil if the blob was whole when it was opened

	mu      sync.Mutex    // guards the field below
	matched chan struct{} // closed while all is here and the digest matched
}

// step hashes more of what is here without a gap, and reports whether there is still
// more. Errors: ctx's; those of the local disk.
func (c *check) step(ctx context.Context, b *stored) (more bool, err error) {
	if c.done(b.size) {
		return false, nil
	}
	ready := min(b.have.FirstMissing(chunks.Of(c.hash.pos), chunks.Count(b.size))*chunks.Size, b.size)
	if err := c.hash.take(ctx, b.file.Load(), min(ready, c.hash.pos+hashStep)); err != nil {
		return false, err
	}
	return c.hash.pos < ready, nil
}

// done reports whether size bytes were hashed, or need not be.
func (c *check) done(size int64) bool { return c.hash == nil || c.hash.pos == size }

// compare compares the digest of a blob that is done, and tells who waits for it when
// it matches. Errors: backends.ErrCorrupt.
func (c *check) compare() error {
	if c.hash != nil {
		if err := c.hash.compare(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.compared() {
		close(c.matched)
	}
	return nil
}

// compared is called with mu held.
func (c *check) compared() bool {
	select {
	case <-c.matched:
		return true
	default:
		return false
	}
}

// afresh begins anew, as bytes were lost that were hashed.
func (c *check) afresh() {
	if c.hash != nil {
		c.hash.reset()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.compared() {
		c.matched = make(chan struct{})
	}
}

// match is closed once all is here and the digest matched.
func (c *check) match() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.matched
}

// serve notes that a reader is to get [off, end), and reports whether the digest must
// match first, as somebody may have all of the blob then.
func (c *check) serve(off, end int64) (last bool) {
	for n := chunks.Of(off); n < chunks.Count(end); n++ {
		if c.served.chunks.Add(n) {
			c.served.left.Add(-1)
		}
	}
	return c.digest != "" && c.served.left.Load() == 0
}

// A served is which chunks of a part readers got before it was verified, over all
// openings of it, for as long as the bytes here stay the same ones.
type served struct {
	size     int64 // bytes
	chunks   chunks.Set
	left     atomic.Int64 // how many nobody got yet
	verified atomic.Bool  // what they got turned out to be right
}

// An Epoch tells the bytes of one download of a blob from those of another one. The
// zero value is that of verified bytes.
type Epoch struct{ served *served }

// noEpoch is that of what is not here.
var noEpoch = Epoch{&served{}}

// Agrees reports whether bytes of both epochs may be combined: they are of one
// download, or all of them were found to be right. Else one of the downloads was
// thrown away, perhaps because its digest did not match.
func (e Epoch) Agrees(o Epoch) bool { return e == o || e.good() && o.good() }

func (e Epoch) good() bool { return e.served == nil || e.served.verified.Load() }

func newServed(size int64) *served {
	s := &served{size: size, chunks: chunks.NewSet(chunks.Count(size))}
	s.left.Store(chunks.Count(size))
	return s
}

// some reports whether any reader got anything.
func (s *served) some() bool { return s == nil || s.left.Load() < chunks.Count(s.size) }

// An origin from which two downloads of a blob in a row did not match the digest is
// not asked for it for mismatchHold: nobody's patience or bandwidth is served by a
// third. Others that have the blob are.
const (
	maxMismatches = 2
	mismatchHold  = 10 * time.Minute
)

// A mismatch is what an origin did with one blob. The zero value is nothing.
type mismatch struct {
	row int // downloads in a row that did not match
	at  time.Time
	err error // of the last one
}

// refusal says why the blob is not fetched from there; nil if it is.
func (s *mismatch) refusal() error {
	if s.row < maxMismatches {
		return nil
	}
	if time.Since(s.at) >= mismatchHold {
		*s = mismatch{}
		return nil
	}
	return s.err
}

// refused returns until when the blob is refused, or the zero time.
func (s *mismatch) refused() time.Time {
	if s.refusal() == nil {
		return time.Time{}
	}
	return s.at.Add(mismatchHold)
}
