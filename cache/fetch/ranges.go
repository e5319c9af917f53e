// SPDX-License-Identifier: Apache-2.0

package fetch

import "github.com/sregfs/sregfs/cache/chunks"

// ranges say which chunks are here and which are under way. Each chunk that is under
// way has exactly one fetch that may write it, and a chunk that is here is never
// written again: otherwise a second answer could replace bytes that were hashed
// already. Guarded by work.mu.
type ranges struct {
	size    int64
	have    chunks.Set
	owner   map[int64]*fetch
	running int    // fetches
	stream  *fetch // the last one of a service without ranges; may have ended
}

func newRanges(size int64, have chunks.Set) ranges {
	return ranges{size: size, have: have, owner: map[int64]*fetch{}}
}

// complete reports whether all chunks are here.
func (r *ranges) complete() bool {
	n := chunks.Count(r.size)
	return r.have.FirstMissing(0, n) == n
}

// missing reports whether a chunk is neither here nor under way.
func (r *ranges) missing(c int64) bool { return !r.have.Has(c) && r.owner[c] == nil }

// gap returns the first run of at most limit bytes in [off, end) of chunks that
// neither are here nor under way.
func (r *ranges) gap(off, end, limit int64) (from, to int64, ok bool) {
	last := chunks.Count(end)
	c := chunks.Of(off)
	for ; ; c++ {
		if c = r.have.FirstMissing(c, last); c >= last {
			return 0, 0, false
		}
		if r.owner[c] == nil {
			break
		}
	}
	from = c * chunks.Size
	for c++; c < last && c*chunks.Size-from < limit && r.missing(c); c++ {
	}
	return from, min(c*chunks.Size, r.size), true
}

// claim gives f the chunks of its range from the one at off on that are missing.
func (r *ranges) claim(f *fetch, off int64) {
	for c := chunks.Of(off); c < chunks.Count(f.end); c++ {
		if r.missing(c) {
			r.owner[c] = f
		}
	}
}

// drop gives up what f has not written, and counts it as ended.
func (r *ranges) drop(f *fetch) {
	r.running--
	for c, owner := range r.owner {
		if owner == f {
			delete(r.owner, c)
		}
	}
}

// unread returns the first byte of [off, end) that cannot be read yet, or -1.
func (r *ranges) unread(off, end int64) int64 {
	for c := chunks.Of(off); c*chunks.Size < end; c++ {
		if r.have.Has(c) {
			continue
		}
		if f := r.owner[c]; f == nil || f.pos < min(end, (c+1)*chunks.Size) {
			return max(off, c*chunks.Size)
		}
	}
	return -1
}

// cut ends f before chunk c, and returns where what it was to bring in one run from
// there on ended.
func (r *ranges) cut(f *fetch, c int64) (end int64) {
	run := true
	for n := c; n < chunks.Count(f.end); n++ {
		if r.owner[n] != f {
			run = false
			continue
		}
		delete(r.owner, n)
		if run {
			end = min((n+1)*chunks.Size, r.size)
		}
	}
	f.end = c * chunks.Size
	return end
}

// whole returns the stream of the whole, nil if there is none under way.
func (r *ranges) whole() *fetch {
	if r.stream == nil || r.stream.ended() {
		return nil
	}
	return r.stream
}

// any returns a fetch under way, nil if there is none.
func (r *ranges) any() *fetch {
	for _, f := range r.owner {
		return f
	}
	return r.whole()
}
