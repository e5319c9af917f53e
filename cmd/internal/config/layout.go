// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/sregfs/sregfs/backends"
)

// A span is a piece of a text: bytes [start, end).
type span struct{ start, end int }

// A layout is where things are in the text of a configuration file.
type layout struct {
	text          []byte
	tables        []tableAt    // in the order of the file
	comments      map[int]bool // beginnings of the lines that are a comment and nothing else
	loose         map[string]bool
	parsed        *file
	defaultRemote string // of the setting "default"
	defaultAt     span
	settings      map[string]span // values in tables of remotes, by keyPath
	ends          map[int]int     // where the last key of a table ends, by its place in tables
}

// A tableAt is the header of a table.
type tableAt struct {
	key  []string
	line int  // where its line begins
	name span // of the second part of the key
}

// readLayout reads the text of a configuration file, which must be valid TOML.
func readLayout(text []byte) (*layout, error) {
	f, err := parseFile("configuration", 0o600, text)
	if err != nil {
		return nil, err
	}
	l := &layout{text: text, comments: map[int]bool{}, loose: map[string]bool{}, parsed: f,
		settings: map[string]span{}, ends: map[int]int{}}
	p := unstable.Parser{KeepComments: true}
	p.Reset(text)
	var table []string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Comment:
			l.comments[l.lineOf(spanOf(e).start)] = true
		case unstable.KeyValue:
			key, at := keyOfNode(e)
			key = append(table[:len(table):len(table)], key...)
			value := l.valueSpan(at[len(at)-1].end, e.Value())
			l.settings[keyPath(key...)], l.ends[len(l.tables)-1] = value, value.end
			l.noteKey(key, e.Value())
		default:
			var at []span
			table, at = keyOfNode(e)
			t := tableAt{key: table, line: l.lineOf(at[0].start)}
			if len(at) > 1 {
				t.name = at[1]
			}
			l.tables = append(l.tables, t)
		}
	}
	return l, nil
}

func spanOf(n *unstable.Node) span {
	return span{int(n.Raw.Offset), int(n.Raw.Offset + n.Raw.Length)}
}

// keyOfNode returns the parts of a key and where each is.
func keyOfNode(e *unstable.Node) (key []string, at []span) {
	for it := e.Key(); it.Next(); {
		key = append(key, string(it.Node().Data))
		at = append(at, spanOf(it.Node()))
	}
	return key, at
}

// noteKey remembers which remotes are written elsewhere than in tables of their
// own, and the default.
func (l *layout) noteKey(key []string, value *unstable.Node) {
	if len(key) == 1 && key[0] == "default" && value.Kind == unstable.String {
		l.defaultRemote, l.defaultAt = string(value.Data), spanOf(value)
	}
	if key[0] != "remotes" {
		return
	}
	if len(key) == 1 {
		remotes, _ := l.parsed.top["remotes"].(map[string]any)
		for name := range remotes {
			l.loose[name] = true
		}
		return
	}
	for _, t := range l.tables {
		if len(t.key) > 1 && t.key[0] == "remotes" && t.key[1] == key[1] {
			return
		}
	}
	l.loose[key[1]] = true
}

// lineOf returns where the line begins in which off is.
func (l *layout) lineOf(off int) int { return bytes.LastIndexByte(l.text[:off], '\n') + 1 }

// start returns where table i begins: with the comments right above its header,
// but for those that are the head of the whole file.
func (l *layout) start(i int) int {
	start := l.tables[i].line
	for start > 0 {
		above := l.lineOf(start - 1)
		if !l.comments[above] {
			return start
		}
		start = above
	}
	return l.tables[i].line
}

// has reports whether the file tells of a remote, in whatever form.
func (l *layout) has(name string) bool {
	remotes, _ := l.parsed.top["remotes"].(map[string]any)
	_, ok := remotes[name]
	return ok
}

// remote returns the tables of a remote.
func (l *layout) remote(name string) ([]int, error) {
	if !l.has(name) {
		return nil, backends.NotFound("the configuration has no remote %s", name)
	}
	var mine []int
	for i, t := range l.tables {
		if len(t.key) > 1 && t.key[0] == "remotes" && t.key[1] == name {
			mine = append(mine, i)
		}
	}
	if len(mine) == 0 || l.loose[name] {
		return nil, fmt.Errorf("%w: remote %s is not written as a [remotes.%s] table of its own: edit the file by hand",
			errors.ErrUnsupported, name, name)
	}
	return mine, nil
}

// keyPath is a key in layout.settings.
func keyPath(key ...string) string { return strings.Join(key, "\x00") }

// valueSpan returns where the value is of a key that ends at off. The parser tells it of
// simple values only; of others it is the least that can be read.
func (l *layout) valueSpan(off int, value *unstable.Node) span {
	if at := spanOf(value); at.end > at.start {
		return at
	}
	start := off + bytes.IndexByte(l.text[off:], '=') + 1
	for end := start; end < len(l.text); {
		n := bytes.IndexAny(l.text[end:], "]}")
		if n < 0 {
			break
		}
		end += n + 1
		var v struct{ V any }
		if toml.Unmarshal(append([]byte("V ="), l.text[start:end]...), &v) == nil {
			return span{start + len(l.text[start:end]) - len(bytes.TrimLeft(l.text[start:end], " \t")), end}
		}
	}
	return span{start, start}
}

// endOfLine returns where the next line begins.
func (l *layout) endOfLine(off int) int {
	if n := bytes.IndexByte(l.text[off:], '\n'); n >= 0 {
		return off + n + 1
	}
	return len(l.text)
}
