// SPDX-License-Identifier: Apache-2.0

package httpx

import (
	"net/url"
	"strconv"
	"time"
)

const (
	// LinkLife is how long bytes are read directly from where a registry redirected to.
	// Signed links live for some minutes.
	LinkLife = 2 * time.Minute
	// LinkSpare is how long before its end a signed link is no longer used: its clock is
	// not ours.
	LinkSpare = 5 * time.Second
)

// LinkUntil returns until when a link that was given now is used: for LinkLife, or less where its signature says when it ends (AWS and Google: seconds from its
// date; CloudFront and older ones: a Unix time; Azure: a date).
func LinkUntil(link string, now time.Time) time.Time {
	until := now.Add(LinkLife)
	u, err := url.Parse(link)
	if err != nil {
		return until
	}
	q := u.Query()
	ends := func(at time.Time) {
		if at = at.Add(-LinkSpare); at.Before(until) {
			until = at
		}
	}
	for _, p := range []string{"X-Amz-", "X-Goog-"} {
		from, err := time.Parse("20060102T150405Z", q.Get(p+"Date"))
		if secs, serr := strconv.ParseInt(q.Get(p+"Expires"), 10, 32); err == nil && serr == nil {
			ends(from.Add(time.Duration(secs) * time.Second))
		}
	}
	if unix, err := strconv.ParseInt(q.Get("Expires"), 10, 64); err == nil {
		ends(time.Unix(unix, 0))
	}
	if at, err := time.Parse(time.RFC3339, q.Get("se")); err == nil {
		ends(at)
	}
	return until
}
