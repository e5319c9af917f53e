// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// maxTargets bounds what is remembered.
const maxRedirects = 4096

// targets remembers where blobs were redirected to. The zero value is empty.
//
// What is out of date is asked for anew by one request; those that come
// meanwhile wait for what it finds.
type redirects struct {
	mu   sync.Mutex // guards the field below
	urls map[string]redirect
}

type redirect struct {
	url      string
	until    time.Time
	renewing chan struct{} // closed when somebody has asked anew; nil while nobody does
}

// get returns where to read the blob from. If that is "", the registry must be
// asked, and put or forget be called with its answer; wait, if not nil, is
// closed when another one has done so: then get tells more.
func (t *redirects) get(key string) (url string, wait <-chan struct{}) {
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
func (t *redirects) put(key, url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(key)
	now := time.Now()
	until := httpx.LinkUntil(url, now)
	if !until.After(now) {
		delete(t.urls, key)
		return
	}
	if t.urls == nil || len(t.urls) >= maxRedirects {
		t.clear()
	}
	t.urls[key] = redirect{url: url, until: until}
}

// forget notes that the registry has redirected nowhere.
func (t *redirects) forget(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.release(key)
	delete(t.urls, key)
}

// expire notes that url no longer works. One that was put meanwhile stays.
func (t *redirects) expire(key, url string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if to, ok := t.urls[key]; ok && to.url == url {
		to.until = time.Time{}
		t.urls[key] = to
	}
}

// settle lets those go who wait for key. Call with mu held.
func (t *redirects) release(key string) {
	if to := t.urls[key]; to.renewing != nil {
		close(to.renewing)
		to.renewing = nil
		t.urls[key] = to
	}
}

func (t *redirects) clear() {
	for key := range t.urls {
		t.release(key)
	}
	t.urls = map[string]redirect{}
}
