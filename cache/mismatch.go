// SPDX-License-Identifier: Apache-2.0

package cache

import "time"

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

// mismatched counts a download that did not match its digest, and reports whether to
// try once more without being asked.
func (it *item) mismatched(err error) (again bool) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.mismatch = mismatch{row: it.mismatch.row + 1, at: time.Now(), err: err}
	return it.mismatch.row < maxMismatches && !it.cache.opts.NoBackground
}
