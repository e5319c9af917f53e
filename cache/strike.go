// SPDX-License-Identifier: Apache-2.0

package cache

import "time"

// An origin from which two downloads of a blob in a row did not match the digest is
// not asked for it for strikeHold: nobody's patience or bandwidth is served by a
// third. Others that have the blob are.
const (
	maxStrikes = 2
	strikeHold = 10 * time.Minute
)

// A strike is what an origin did with one blob. The zero value is nothing.
type strike struct {
	row int // downloads in a row that did not match
	at  time.Time
	err error // of the last one
}

// refusal says why the blob is not fetched from there; nil if it is.
func (s *strike) refusal() error {
	if s.row < maxStrikes {
		return nil
	}
	if time.Since(s.at) >= strikeHold {
		*s = strike{}
		return nil
	}
	return s.err
}

// refused returns until when the blob is refused, or the zero time.
func (s *strike) refused() time.Time {
	if s.refusal() == nil {
		return time.Time{}
	}
	return s.at.Add(strikeHold)
}

// struck counts a download that did not match its digest, and reports whether to
// try once more without being asked.
func (it *item) struck(err error) (again bool) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.strike = strike{row: it.strike.row + 1, at: time.Now(), err: err}
	return it.strike.row < maxStrikes && !it.cache.opts.NoBackground
}
