// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"iter"

	"github.com/sregfs/sregfs/backends"
)

// How much Pages reads at once. The first page is small, as many callers want a
// few pairs only.
const (
	firstPage    = 32
	maxPage      = 1024
	maxPageBytes = 256 << 10
)

// Pages is Scan for callers that take long: it prefetches, and keeps nothing of the store
// open while the caller looks at a pair. What is written meanwhile may be seen or not. Key and value are valid until the next step only.
func Pages(s Store, prefix, from []byte) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		r := paging{store: s, prefix: prefix, from: bytes.Clone(from), size: firstPage}
		p, other := r.read(new(page)), new(page)
		for {
			// Of a large listing the next page is read while the caller looks at this one.
			var next chan *page
			if p.more && r.size == maxPage {
				next = make(chan *page, 1)
				go func() {
					if err := backends.Guard(nil, func() error { r.read(other); return nil }); err != nil {
						other.more, other.err = false, err
					}
					next <- other
				}()
			}
			more, wanted := p.more, p.each(yield)
			if next != nil {
				p, other = <-next, p // wait for it in any case: it uses the store
			}
			if !more || !wanted {
				return
			}
			if next == nil {
				p = r.read(p)
			}
		}
	}
}

// A paging reads one page after the other.
type paging struct {
	store        Store
	prefix, from []byte
	size         int // pairs of the next page
}

// read fills p.
func (r *paging) read(p *page) *page {
	p.more, p.err = p.read(r.store, r.prefix, r.from, r.size)
	if n := p.pairs(); n > 0 {
		r.from = append(append(r.from[:0], p.pair(n-1).Key...), 0)
	}
	r.size = min(2*r.size, maxPage)
	return p
}

// A page is a copy of some pairs. It is used again and again.
type page struct {
	bytes []byte // keys and values, one after the other
	ends  []int  // of each key and each value
	more  bool   // another page may follow
	err   error  // after the pairs
}

// each yields the pairs and the error, and reports whether the caller wants more.
func (p *page) each(yield func(KV, error) bool) bool {
	for i := range p.pairs() {
		if !yield(p.pair(i), nil) {
			return false
		}
	}
	return p.err == nil || yield(KV{}, p.err)
}

// read fills the page with at most n pairs, and reports whether there may be more.
func (p *page) read(s Store, prefix, from []byte, n int) (more bool, err error) {
	p.bytes, p.ends = p.bytes[:0], p.ends[:0]
	for kv, err := range s.Scan(prefix, from) {
		if err != nil {
			return false, err
		}
		p.bytes = append(p.bytes, kv.Key...)
		p.ends = append(p.ends, len(p.bytes))
		p.bytes = append(p.bytes, kv.Value...)
		p.ends = append(p.ends, len(p.bytes))
		if p.pairs() == n || len(p.bytes) >= maxPageBytes {
			return true, nil
		}
	}
	return false, nil
}

func (p *page) pairs() int { return len(p.ends) / 2 }

func (p *page) pair(i int) KV {
	begin := 0
	if i > 0 {
		begin = p.ends[2*i-1]
	}
	key, value := p.ends[2*i], p.ends[2*i+1]
	return KV{Key: p.bytes[begin:key:key], Value: p.bytes[key:value:value]}
}
