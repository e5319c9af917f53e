// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"iter"
)

// How much pages reads at once. A first page is small, for those who want a few
// pairs only.
const (
	firstPage    = 32
	maxPage      = 1024
	maxPageBytes = 256 << 10
)

// pages is Scan for those who take their time: it reads ahead and keeps nothing
// of the store open while the caller looks at a pair. What is written meanwhile
// may be seen or not. Key and value are valid until the next step only.
func pages(s Store, prefix, from []byte) iter.Seq2[KV, error] {
	return func(yield func(KV, error) bool) {
		var p page
		from := bytes.Clone(from)
		for size := firstPage; ; size = min(2*size, maxPage) {
			more, err := p.read(s, prefix, from, size)
			for i := range p.pairs() {
				if !yield(p.pair(i), nil) {
					return
				}
			}
			if err != nil {
				yield(KV{}, err)
			}
			if !more || err != nil {
				return
			}
			from = append(append(from[:0], p.pair(p.pairs()-1).Key...), 0)
		}
	}
}

// A page is a copy of some pairs. It is used again and again.
type page struct {
	bytes []byte // keys and values, one after the other
	ends  []int  // of each key and each value
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
