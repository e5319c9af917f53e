// SPDX-License-Identifier: Apache-2.0

package drivetest

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// A condition is a query, or a part of one.
// https://developers.google.com/workspace/drive/api/guides/ref-search-terms
type condition func(n *node) bool

var word = regexp.MustCompile(`^\s*('(?:[^'\\]|\\.)*'|[A-Za-z]+|!=|<=|>=|[()={}<>])`)

// A parser reads a query. What it does not know is refused: a client that sends it has to
// be tried with Drive first.
type parser struct {
	s    *Server
	rest string
	err  error
	ids  []string // that "in parents" names
}

func (p *parser) peek() string {
	m := word.FindStringSubmatch(p.rest)
	if m == nil {
		return ""
	}
	return m[1]
}

func (p *parser) next() string {
	m := word.FindStringSubmatch(p.rest)
	if m == nil {
		p.fail("%q is no query", p.rest)
		return ""
	}
	p.rest = p.rest[len(m[0]):]
	return m[1]
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

func (p *parser) want(words ...string) {
	for _, want := range words {
		if got := p.next(); got != want {
			p.fail("%q where %q belongs", got, want)
		}
	}
}

// text returns what a quoted string says.
func (p *parser) text() string {
	quoted := p.next()
	if len(quoted) < 2 || quoted[0] != '\'' {
		p.fail("%q is no string", quoted)
		return ""
	}
	var b strings.Builder
	inner := quoted[1 : len(quoted)-1]
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			if i++; inner[i] != '\'' && inner[i] != '\\' {
				p.fail("\\%c in a string", inner[i])
			}
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

func (p *parser) or() condition {
	left := p.and()
	for p.err == nil && p.peek() == "or" {
		p.next()
		l, r := left, p.and()
		left = func(n *node) bool { return l(n) || r(n) }
	}
	return left
}

func (p *parser) and() condition {
	left := p.term()
	for p.err == nil && p.peek() == "and" {
		p.next()
		l, r := left, p.term()
		left = func(n *node) bool { return l(n) && r(n) }
	}
	return left
}

func (p *parser) term() condition {
	switch first := p.peek(); {
	case first == "(":
		p.next()
		inner := p.or()
		p.want(")")
		return inner
	case strings.HasPrefix(first, "'"):
		id := p.s.alias(p.text())
		p.want("in", "parents")
		p.ids = append(p.ids, id)
		return func(n *node) bool { return n.parent == id }
	}
	field, op := p.next(), p.next()
	compare, ok := comparisons[field+" "+op]
	if !ok {
		p.fail("the condition %q %q", field, op)
		return func(*node) bool { return false }
	}
	return compare(p)
}

// comparisons are those of the fields that are asked for.
var comparisons = map[string]func(p *parser) condition{
	"name =": func(p *parser) condition { // in any case: rclone compares once more, for that
		name := p.text()
		return func(n *node) bool { return strings.EqualFold(n.name, name) }
	},
	"name contains": func(p *parser) condition { // "only performs prefix matching", of words; here of the whole
		name := strings.ToLower(p.text())
		return func(n *node) bool { return strings.HasPrefix(strings.ToLower(n.name), name) }
	},
	"mimeType =": func(p *parser) condition {
		kind := p.text()
		return func(n *node) bool { return n.kind == kind }
	},
	"trashed =": func(p *parser) condition {
		p.want("false")
		return func(n *node) bool { return !p.s.inTrash(n) }
	},
	"sharedWithMe =": func(p *parser) condition {
		p.want("true")
		return func(n *node) bool { return n.shared }
	},
	"createdTime <": func(p *parser) condition {
		at, err := time.Parse("2006-01-02T15:04:05", p.text())
		if err != nil {
			p.fail("%v", err)
		}
		return func(n *node) bool { return n.created.Before(at) }
	},
	"properties has": func(p *parser) condition {
		p.want("{", "key", "=")
		key := p.text()
		p.want("and", "value", "=")
		value := p.text()
		p.want("}")
		return func(n *node) bool { return n.properties[key] == value }
	},
}

// parse returns what a query chooses, and the folders that it names.
func (s *Server) parse(q string) (condition, []string, error) {
	p := &parser{s: s, rest: q}
	c := p.or()
	if p.err == nil && strings.TrimSpace(p.rest) != "" {
		p.fail("%q behind the query", p.rest)
	}
	return c, p.ids, p.err
}
