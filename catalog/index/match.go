// SPDX-License-Identifier: Apache-2.0

package index

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// A Matcher decides which URIs a query means. It is not safe for concurrent use.
type Matcher struct {
	query   []byte // lower case
	glob    bool
	pattern string // of a glob, with noSlash
	literal [][]byte
	buf     []byte
}

// The stars of a query reach across slashes, which those of path.Match do not:
// both sides get this byte instead, which is in no URI.
const noSlash = "\x01"

// NewMatcher reads a query; "" means everything.
// Errors: fs.ErrInvalid for a malformed glob.
func NewMatcher(query string) (*Matcher, error) {
	lower := strings.ToLower(query)
	m := &Matcher{query: []byte(lower), glob: strings.ContainsAny(query, "*?[")}
	if m.glob {
		m.pattern = strings.ReplaceAll(lower, "/", noSlash)
		if _, err := path.Match(m.pattern, ""); err != nil {
			return nil, fmt.Errorf("%w: pattern %q: %v", fs.ErrInvalid, query, err)
		}
	}
	m.literal = m.literals()
	return m, nil
}

// Match reports whether the query means an image.
func (m *Matcher) Match(remote string, ref backends.Ref) bool {
	return m.matchParts(remote, []byte(ref.Collection), []byte(ref.Name), []byte(ref.Tag))
}

// matchParts is Match for the parts of a key. Ordinary names are put together without
// an allocation; a byte that a URI escapes takes the long way.
func (m *Matcher) matchParts(remote string, collection, name, tag []byte) bool {
	if len(m.query) == 0 {
		return true
	}
	if !plain(collection, true) || !plain(name, false) || !plain(tag, false) {
		uri := backends.URI{Remote: remote, Ref: backends.Ref{Collection: string(collection), Name: string(name), Tag: string(tag)}}
		m.buf = append(m.buf[:0], strings.ToLower(uri.String())...)
		return m.match()
	}
	m.buf = append(append(m.buf[:0], remote...), "://"...)
	m.buf = append(append(m.buf, collection...), '/')
	m.buf = append(append(append(m.buf, name...), ':'), tag...)
	for i, c := range m.buf {
		if 'A' <= c && c <= 'Z' {
			m.buf[i] = c + 'a' - 'A'
		}
	}
	return m.match()
}

// clone returns a matcher for another goroutine.
func (m *Matcher) clone() *Matcher {
	return &Matcher{query: m.query, glob: m.glob, pattern: m.pattern, literal: m.literal}
}

// line is Match for "remote://" and "collection/name:tag", where all is plain and
// in lower case.
func (m *Matcher) line(scheme string, line []byte) bool {
	m.buf = append(append(m.buf[:0], scheme...), line...)
	return m.match()
}

// key is Match for the key of an image.
func (m *Matcher) key(remote string, key []byte) bool {
	_, collection, name, tag, ok := cutImageKey(key)
	return ok && m.matchParts(remote, collection, name, tag)
}

// literals returns what is in each URI that the query means, as it is and in
// this order.
func (m *Matcher) literals() [][]byte {
	if !m.glob {
		return [][]byte{m.query}
	}
	var all [][]byte
	begin := 0
	cut := func(end int) {
		if end > begin {
			all = append(all, m.query[begin:end])
		}
	}
	for i := 0; i < len(m.query); i++ {
		switch m.query[i] {
		case '*', '?':
			cut(i)
			begin = i + 1
		case '[', '\\':
			// What is in brackets, and where they end, is for path.Match to say.
			cut(i)
			return all
		}
	}
	cut(len(m.query))
	return all
}

// plain reports whether a part is written in a URI as it is, and lower case is a
// matter of ASCII.
func plain(part []byte, slash bool) bool {
	for i, c := range part {
		switch {
		case c == '.' && i == 0 || c == '%' || c == ':' || c == '@' || c < 0x20 || c >= 0x7f:
			return false
		case c == '/' && (!slash || i+1 < len(part) && part[i+1] == '.'):
			return false
		}
	}
	return true
}

// match compares the query with the URI in buf; a glob also with what follows
// the remote, so that "vsoch/*" finds them on all remotes.
func (m *Matcher) match() bool {
	if !m.glob {
		return bytes.Contains(m.buf, m.query)
	}
	rest := m.buf
	for _, literal := range m.literal { // most names end here
		i := bytes.Index(rest, literal)
		if i < 0 {
			return false
		}
		rest = rest[i+len(literal):]
	}
	uri := string(bytes.ReplaceAll(m.buf, []byte("/"), []byte(noSlash)))
	if ok, err := path.Match(m.pattern, uri); err == nil && ok {
		return true
	}
	_, bare, _ := strings.Cut(uri, ":"+noSlash+noSlash)
	ok, err := path.Match(m.pattern, strings.TrimPrefix(bare, noSlash))
	return err == nil && ok
}
