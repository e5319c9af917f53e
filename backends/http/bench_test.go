// SPDX-License-Identifier: Apache-2.0

package http

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
)

// pageOf is nginx's index of a folder with that many images without an extension.
func pageOf(images int) io.Reader {
	lines := 0
	return &generator{head: "<html><head><title>Index of /x/</title></head><body><pre><a href=\"../\">../</a>\n", tail: "</pre></body></html>\n", line: func() string {
		if lines++; lines > images {
			return ""
		}
		name := fmt.Sprintf("bioconductor-tool-%06d", lines*7919%images)
		return fmt.Sprintf("<a href=\"%s%%3A1.20--h50ea8bc_1\">%[1]s:1.20--h50..&gt;</a>  12-Mar-2024 10:11   123456789\n", name)
	}}
}

// A generator reads what line gives until that is empty.
type generator struct {
	head, tail string
	line       func() string
	rest       string
	ended      bool
}

func (g *generator) Read(p []byte) (int, error) {
	if g.rest == "" {
		g.rest, g.head = g.head, ""
	}
	for p = p[:min(len(p), 4<<10)]; len(g.rest) < len(p) && !g.ended; {
		line := g.line()
		if g.rest += line; line == "" {
			g.rest, g.ended = g.rest+g.tail, true
		}
	}
	if g.rest == "" {
		return 0, io.EOF
	}
	n := copy(p, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// An index of 120,000 files without an extension, as the largest public folder has.
func BenchmarkIndex(b *testing.B) {
	text, err := io.ReadAll(pageOf(120_000))
	if err != nil {
		b.Fatal(err)
	}
	folder, err := url.Parse("https://h/x/")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		x := newIndex(naming{})
		if err := x.parseHTML(strings.NewReader(string(text)), folder); err != nil {
			b.Fatal(err)
		}
		n := 0
		for range x.all() {
			n++
		}
		if n != 120_000 {
			b.Fatal(n)
		}
	}
}
