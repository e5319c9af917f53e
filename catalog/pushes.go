// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// pushes are the files of users that are being pushed, for status. The zero value
// has none.
type pushes struct {
	mu   sync.Mutex // guards the field below and what it leads to
	live map[*Pushing]struct{}
}

// watch counts a push until done is called, and has src tell how far it is.
func (p *pushes) watch(uri, path string, src *backends.Source) (done func()) {
	one := &Pushing{URI: uri, Path: path, Size: src.Size, Since: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == nil {
		p.live = make(map[*Pushing]struct{})
	}
	p.live[one] = struct{}{}
	tell := src.Progress
	src.Progress = func(stored int64) {
		p.mu.Lock()
		one.Stored = stored
		p.mu.Unlock()
		if tell != nil {
			tell(stored)
		}
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.live, one)
	}
}

// all returns the pushes under way, the oldest first.
func (p *pushes) all() []Pushing {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Pushing, 0, len(p.live))
	for one := range p.live {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b Pushing) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.URI, b.URI))
	})
	return list
}
