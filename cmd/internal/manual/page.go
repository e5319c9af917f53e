// SPDX-License-Identifier: Apache-2.0

// Package manual makes what is installed beside the programs out of the programs
// themselves: man pages, docs/commands.md, completions for shells and units for systemd. It
// is run when a release is built, and is part of no program; start at Main.
package manual

import (
	"strings"
)

// A page is one page of the manual, as man(1) or a section of docs/commands.md shows it.
type page struct {
	name     string // of the file, as "sreg-cache-ls"
	title    string // as it is typed, "sreg cache ls"
	section  string // of the manual
	short    string // one line
	synopsis []string
	parts    []part
	also     []string // other pages, as "sregfs(8)"
}

// A part is a heading with what stands below it.
type part struct {
	heading string
	blocks  []block
}

// A block is one of: a paragraph, lines that are shown as they are, an item of a list.
// Text may have code in backticks and nothing else that is special.
type block struct {
	kind blockKind
	term string // of an item; all of it is code
	text string
}

type blockKind int

const (
	paragraph blockKind = iota
	literal
	item
	subheading
)

// blocksOf reads the help text of a command: paragraphs, and indented lines that are shown
// as they are.
func blocksOf(help string) []block {
	var all []block
	for _, text := range strings.Split(strings.Trim(help, "\n"), "\n\n") {
		// A paragraph may lead to its example without an empty line.
		lines := strings.Split(text, "\n")
		for start := 0; start < len(lines); {
			end, indented := start, isIndented(lines[start])
			for end < len(lines) && isIndented(lines[end]) == indented {
				end++
			}
			b := block{kind: paragraph, text: strings.Join(lines[start:end], "\n")}
			if indented {
				b = block{kind: literal, text: unindent(lines[start:end])}
			}
			if strings.TrimSpace(b.text) != "" {
				all = append(all, b)
			}
			start = end
		}
	}
	return joinLiterals(all)
}

// joinLiterals makes one block of examples that only an empty line divides.
func joinLiterals(blocks []block) []block {
	var all []block
	for _, b := range blocks {
		if n := len(all); n > 0 && b.kind == literal && all[n-1].kind == literal {
			all[n-1].text += "\n\n" + b.text
			continue
		}
		all = append(all, b)
	}
	return all
}

func isIndented(line string) bool {
	return strings.HasPrefix(line, "  ") || strings.HasPrefix(line, "\t")
}

// unindent removes the indentation that all lines have.
func unindent(lines []string) string {
	indent := -1
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(line, "\t", "    ")
		if n := len(lines[i]) - len(strings.TrimLeft(lines[i], " ")); lines[i] != "" && (indent < 0 || n < indent) {
			indent = n
		}
	}
	for i, line := range lines {
		lines[i] = line[min(max(indent, 0), len(line)):]
	}
	return strings.Join(lines, "\n")
}

// spans splits text at its backticks: every second one is code.
func spans(text string) []string { return strings.Split(text, "`") }
