// SPDX-License-Identifier: Apache-2.0

package library

import (
	"time"

	"github.com/sregfs/sregfs/backends/internal/bounded"
	"github.com/sregfs/sregfs/backends/internal/httpx"
)

// maxLinks bounds what is remembered.
const maxLinks = 4096

// A link is where the library redirected to for the bytes of one image.
type link struct {
	address string
	etag    string // of the bytes there
	until   time.Time
}

// links remembers them.
type links struct{ all bounded.Map[string, link] }

// get returns the link of key if it is good still.
func (l *links) get(key string) (link, bool) {
	at, ok := l.all.Get(key)
	return at, ok && time.Now().Before(at.until)
}

func (l *links) put(key string, at link) {
	at.until = httpx.LinkUntil(at.address, time.Now())
	l.all.Put(key, at)
}

// drop forgets a link that no longer works. One that was put meanwhile stays.
func (l *links) drop(key string, at link) {
	l.all.Update(key, func(old link, ok bool) (link, bool) { return old, ok && old.address != at.address })
}
