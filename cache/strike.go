// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A service from which two downloads of a blob in a row did not match the digest
// is not asked for it for strikeHold: nobody's patience or bandwidth is served by
// a third. Others that have the blob are: a service that gives out rubbish under
// the digest of something good must not keep anybody from the good one.
const (
	maxStrikes = 2
	strikeHold = 10 * time.Minute
)

// A strike is what one service did.
type strike struct {
	row int // downloads in a row that did not match
	at  time.Time
	err error
}

// strikes are those of all services of one blob.
type strikes map[*backends.Client]strike

// refusal says why the blob is not fetched from that service; nil if it is.
func (s strikes) refusal(client *backends.Client) error {
	one := s[client]
	if one.row < maxStrikes {
		return nil
	}
	if time.Since(one.at) >= strikeHold {
		delete(s, client)
		return nil
	}
	return one.err
}

// refused returns until when the blob is refused from one of the services at
// least, and why; or the zero time.
func (s strikes) refused() (until time.Time, why error) {
	for client := range s {
		if err := s.refusal(client); err != nil && s[client].at.Add(strikeHold).After(until) {
			until, why = s[client].at.Add(strikeHold), err
		}
	}
	return until, why
}

// strike counts a download that did not match its digest against the services
// that it may have come from. It returns the least suspect one, to try once more
// without being asked; ok is false if there is none.
func (it *item) strike(err error, from []source) (next source, ok bool) {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.strikes == nil {
		it.strikes = strikes{}
	}
	it.err = err
	counted := map[*backends.Client]bool{} // one may know the blob by several names
	for _, src := range from {
		one := it.strikes[src.client]
		if !counted[src.client] {
			counted[src.client] = true
			one = strike{row: one.row + 1, at: time.Now(), err: err}
			it.strikes[src.client] = one
		}
		if one.row < maxStrikes && (!ok || one.row < it.strikes[next.client].row) {
			next, ok = src, true
		}
	}
	return next, ok && !it.cache.opts.NoBackground
}
