// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"net/url"
	"strconv"
	"sync"
	"time"
)

const (
	// targetLife is how long a blob is read directly from where the registry
	// redirected to. Signed links live for some minutes.
	targetLife = 2 * time.Minute
	// targetSpare is how long before its end a signed link is no longer used: its
	// clock is not ours.
	targetSpare = 5 * time.Second
)

// targets remembers where blobs were redirected to. The zero value is empty.
//
// What is out of date is asked for anew by one request; those that come
// meanwhile wait for what it finds.
type targets struct {
	mu   sync.Mutex // guards the field below
	urls map[string]target
}

type target struct {
	url      string
	until    time.Time
	renewing chan struct{} // closed when somebody has asked anew; nil while nobody does
}

// get returns where to read the blob from. If that is "", the registry must be
// asked, and put or forget be called with its answer; wait, if not nil, is
// closed when another one has done so: then get tells more.
func (t *targets) get(key string) (url string, wait <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to, ok := t.urls[key]
	switch {
	case !ok:
		return "", nil
	case to.renewing != nil:
		return "", to.renewing
	case time.Now().Before(to.until):
		return to.url, nil
	}
	to.renewing = make(chan struct{})
	t.urls[key] = to
	return "", nil
}

// put notes what the registry has answered. A link that has ended by our clock,
// which may be the wrong one, is good for one read: nobody waits for the next.
func (t *targets) put(key, url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(key)
	now := time.Now()
	until := expiry(url, now)
	if !until.After(now) {
		delete(t.urls, key)
		return
	}
	if t.urls == nil || len(t.urls) >= maxKnown {
		t.clear()
	}
	t.urls[key] = target{url: url, until: until}
}

// forget notes that the registry has redirected nowhere.
func (t *targets) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settle(key)
	delete(t.urls, key)
}

// expire notes that url no longer works. One that was put meanwhile stays.
func (t *targets) expire(key, url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if to, ok := t.urls[key]; ok && to.url == url {
		to.until = time.Time{}
		t.urls[key] = to
	}
}

// settle lets those go who wait for key. Call with mu held.
func (t *targets) settle(key string) {
	if to := t.urls[key]; to.renewing != nil {
		close(to.renewing)
		to.renewing = nil
		t.urls[key] = to
	}
}

func (t *targets) clear() {
	for key := range t.urls {
		t.settle(key)
	}
	t.urls = map[string]target{}
}

// expiry returns until when a link that was given now is used: for targetLife,
// or less where its signature says when it ends (AWS and Google: seconds from its
// date; CloudFront and older ones: a Unix time; Azure: a date).
func expiry(link string, now time.Time) time.Time {
	until := now.Add(targetLife)
	u, err := url.Parse(link)
	if err != nil {
		return until
	}
	q := u.Query()
	ends := func(at time.Time) {
		if at = at.Add(-targetSpare); at.Before(until) {
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
