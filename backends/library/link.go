// SPDX-License-Identifier: Apache-2.0

package library

import (
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	// linkLife is how long a presigned URL is used, or less where it says so.
	linkLife = 2 * time.Minute
	// linkSpare is how long before its end it is no longer used: its clock is not ours.
	linkSpare = 5 * time.Second
	// maxLinks bounds what is remembered.
	maxLinks = 4096
)

// A link is where the library redirected to for the bytes of one image.
type link struct {
	address string
	etag    string // of the bytes there
	until   time.Time
}

// links remembers them. The zero value is empty.
type links struct {
	mu  sync.Mutex // guards the field below
	all map[string]link
}

// get returns the link of key if it is good still.
func (l *links) get(key string) (link, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, ok := l.all[key]
	return at, ok && time.Now().Before(at.until)
}

func (l *links) put(key string, at link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil || len(l.all) >= maxLinks {
		l.all = map[string]link{}
	}
	at.until = expiry(at.address, time.Now())
	l.all[key] = at
}

// drop forgets a link that no longer works. One that was put meanwhile stays.
func (l *links) drop(key string, at link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all[key].address == at.address {
		delete(l.all, key)
	}
}

// expiry returns until when an address that was given now is used. S3 writes into
// it when it was signed, and for how many seconds.
func expiry(address string, now time.Time) time.Time {
	until := now.Add(linkLife)
	u, err := url.Parse(address)
	if err != nil {
		return until
	}
	q := u.Query()
	from, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	seconds, wrong := strconv.ParseInt(q.Get("X-Amz-Expires"), 10, 32)
	if err != nil || wrong != nil {
		return until
	}
	if end := from.Add(time.Duration(seconds)*time.Second - linkSpare); end.Before(until) {
		return end
	}
	return until
}
