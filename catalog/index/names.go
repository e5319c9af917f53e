// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
)

// A nameTable is the names of all images of one remote as text, one to a line in
// the order of their keys, so that a search is a search in 30 to 60 MB of memory
// for a million of them. It says where to look, not what is there: of each name
// it gives the store is asked, so names that were deleted do no harm.
// A table never changes.
type nameTable struct {
	remote string
	scheme string // "remote://" in lower case
	chunks []nameChunk
	odd    [][]byte // keys of images whose names a URI escapes, in order
	count  int
	size   int // bytes of text
}

// A nameChunk is part of the text. It begins and ends with the end of a line.
type nameChunk struct {
	first []byte   // key of the first image
	text  []byte   // "\ncollection/name:tag\n…", ASCII in lower case
	upper []uint64 // a bit for each byte of text that was upper case; nil: none
}

const (
	nameChunkSize = 64 << 10
	// The names of a remote take no more memory than this. Beyond, a search
	// reads the store.
	maxNameText = 128 << 20
)

func newNameTable(remote string) *nameTable {
	return &nameTable{remote: remote, scheme: strings.ToLower(remote) + "://"}
}

// add appends the image of a key, given in its parts too, unless t is nil or
// full. It is called in the order of the keys.
func (t *nameTable) add(key, collection, name, tag []byte) {
	if t == nil || t.full() {
		return
	}
	t.count++
	if !plain(collection, true) || !plain(name, false) || !plain(tag, false) {
		t.odd = append(t.odd, bytes.Clone(key))
		t.size += len(key)
		return
	}
	n := len(collection) + len(name) + len(tag) + 3
	last := len(t.chunks) - 1
	if last < 0 || len(t.chunks[last].text)+n > cap(t.chunks[last].text) {
		t.chunks = append(t.chunks, nameChunk{first: bytes.Clone(key), text: append(make([]byte, 0, max(nameChunkSize, n+1)), '\n')})
		last++
	}
	t.size += n
	t.chunks[last].add(collection, name, tag)
}

// full reports whether names may be missing.
func (t *nameTable) full() bool { return t.size > maxNameText }

func (c *nameChunk) add(collection, name, tag []byte) {
	begin := len(c.text)
	c.text = append(append(c.text, collection...), '/')
	c.text = append(append(c.text, name...), ':')
	c.text = append(append(c.text, tag...), '\n')
	for i := begin; i < len(c.text); i++ {
		if b := c.text[i]; 'A' <= b && b <= 'Z' {
			if c.upper == nil {
				c.upper = make([]uint64, (cap(c.text)+63)/64)
			}
			c.upper[i/64] |= 1 << (i % 64)
			c.text[i] = b + 'a' - 'A'
		}
	}
}

// key returns the key of the image in the line from begin to end.
func (t *nameTable) key(c *nameChunk, begin, end int) []byte {
	line := string(c.text[begin:end])
	if c.upper != nil {
		cased := []byte(line)
		for i := range cased {
			if at := begin + i; c.upper[at/64]&(1<<(at%64)) != 0 {
				cased[i] -= 'a' - 'A'
			}
		}
		line = string(cased)
	}
	path, tag, _ := strings.Cut(line, ":") // a plain part has no colon
	slash := strings.LastIndexByte(path, '/')
	return ImageKey(t.remote, backends.Ref{Collection: path[:slash], Name: path[slash+1:], Tag: tag})
}

// has reports whether the table has the image of a key.
func (t *nameTable) has(key []byte) bool {
	if _, ok := slices.BinarySearchFunc(t.odd, key, bytes.Compare); ok {
		return true
	}
	i, ok := slices.BinarySearchFunc(t.chunks, key, func(c nameChunk, key []byte) int { return bytes.Compare(c.first, key) })
	if ok || i == 0 {
		return ok
	}
	c := &t.chunks[i-1]
	_, collection, name, tag, ok := cutImageKey(key)
	if !ok {
		return false
	}
	line := append([]byte{'\n'}, collection...)
	line = append(append(append(line, '/'), name...), ':')
	line = append(append(line, tag...), '\n')
	found := false
	for begin, end := range c.lines([]needle{t.needle(bytes.ToLower(line))}) {
		found = found || bytes.Equal(t.key(c, begin, end), key)
	}
	return found
}

// A needle is a text to be found, by a byte in it that is rare.
type needle struct {
	text []byte
	rare int // where the byte is in text
}

// in returns where the needle is in text from an offset on; -1 if nowhere.
// bytes.Index looks for the first byte, and that of a tag or a number is in every line.
func (n needle) in(text []byte, from int) int {
	for at := from + n.rare; at < len(text); at++ {
		i := bytes.IndexByte(text[at:], n.text[n.rare])
		if i < 0 {
			return -1
		}
		at += i
		if begin := at - n.rare; bytes.HasPrefix(text[begin:], n.text) {
			return begin
		}
	}
	return -1
}

// lines yields where the lines begin and end, in their order, that have one of
// the needles in them.
func (c *nameChunk) lines(needles []needle) func(yield func(begin, end int) bool) {
	return func(yield func(begin, end int) bool) {
		next := make([]int, len(needles)) // where each is found next; -1: nowhere
		for i, n := range needles {
			next[i] = n.in(c.text, 0)
		}
		for {
			at := -1
			for _, n := range next {
				if n >= 0 && (at < 0 || n < at) {
					at = n
				}
			}
			if at < 0 {
				return
			}
			if c.text[at] == '\n' {
				at++ // the needle says how the line begins
			}
			begin := bytes.LastIndexByte(c.text[:at], '\n') + 1
			end := at + bytes.IndexByte(c.text[at:], '\n')
			if !yield(begin, end) {
				return
			}
			for i, n := range needles {
				if next[i] >= 0 && next[i] < end {
					next[i] = n.in(c.text, end)
				}
			}
		}
	}
}

// find returns the keys of the images that m means, in their order; ok is false
// if they are more than a limit, or may be any.
func (t *nameTable) find(m *Matcher, limit int) (keys [][]byte, ok bool) {
	needles, ok := t.needles(m)
	if !ok {
		return nil, false
	}
	workers := runtime.GOMAXPROCS(0)
	found := make([][][]byte, workers)
	var g errgroup.Group
	for w := range workers {
		g.Go(func() error {
			return backends.Guard(nil, func() error {
				own := m.clone()
				for i := w * len(t.chunks) / workers; i < (w+1)*len(t.chunks)/workers; i++ {
					c := &t.chunks[i]
					for begin, end := range c.lines(needles) {
						if !own.line(t.scheme, c.text[begin:end]) {
							continue
						}
						if found[w] = append(found[w], t.key(c, begin, end)); len(found[w]) > limit {
							return nil
						}
					}
				}
				return nil
			})
		})
	}
	_ = backends.Raise(g.Wait()) // nothing else
	for _, some := range found {
		keys = append(keys, some...)
	}
	for _, key := range t.odd {
		if m.key(t.remote, key) {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return keys, len(keys) <= limit
}

// needles returns what the lines of all matches have in them, one of several; ok
// is false if any line may match.
func (t *nameTable) needles(m *Matcher) (best []needle, ok bool) {
	fewest := -1
	for _, literal := range m.literal {
		if strings.Contains(t.scheme, string(literal)) {
			continue
		}
		some := []needle{t.needle(literal)}
		for i := range t.scheme {
			if rest, ok := bytes.CutPrefix(literal, []byte(t.scheme[i:])); ok {
				some = append(some, t.needle(append([]byte{'\n'}, rest...)))
			}
		}
		n := 0
		for c := range t.samples() {
			for range c.lines(some) {
				n++
			}
		}
		if fewest < 0 || n < fewest {
			best, fewest = some, n
		}
	}
	return best, best != nil
}

// needle returns the needle for a text that is not empty.
func (t *nameTable) needle(text []byte) needle {
	best, fewest := 0, -1
	for i := range text {
		n := 0
		for c := range t.samples() {
			n += bytes.Count(c.text, text[i:i+1])
		}
		if fewest < 0 || n < fewest {
			best, fewest = i, n
		}
	}
	return needle{text, best}
}

// samples yields some of the chunks.
func (t *nameTable) samples() func(yield func(*nameChunk) bool) {
	return func(yield func(*nameChunk) bool) {
		const most = 3
		n := min(most, len(t.chunks))
		for i := range n {
			if !yield(&t.chunks[(2*i+1)*len(t.chunks)/(2*n)]) {
				return
			}
		}
	}
}
