// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"io"
	"slices"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// A table prints rows in columns. Its cells may come from a registry: they are escaped. On
// a terminal, what is too wide for it is cut in the middle, and states have colours.
type table struct {
	out    io.Writer
	header bool
	rows   [][]string
	marks  []string // what is marked in the columns URI and MATCH, whatever its case
}

func newTable(w io.Writer, header ...string) *table {
	t := &table{out: w, header: len(header) > 0}
	if t.header {
		t.row(header...)
	}
	return t
}

// lineBreak in the last cell of a row makes more lines of it. No name has this byte.
const lineBreak = "\x00"

func (t *table) row(cells ...string) {
	if last := len(cells) - 1; last >= 0 && strings.Contains(cells[last], lineBreak) {
		lines := strings.Split(cells[last], lineBreak)
		cells[last] = lines[0]
		defer func() {
			for _, line := range lines[1:] {
				t.rows = append(t.rows, append(make([]string, last), backends.Printable(line)))
			}
		}()
	}
	for i, c := range cells {
		// An empty cell in the middle would shift the columns for programs that split
		// at spaces.
		if cells[i] = backends.Printable(c); c == "" && i < len(cells)-1 {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

const (
	columnGap = 2
	minColumn = 10 // what is left of a cell that is cut
	minReason = 20 // room for the beginning of a reason
)

// flush prints the table.
func (t *table) flush() error {
	widths := t.widths()
	colours := coloured(t.out)
	out := bufio.NewWriterSize(t.out, 64<<10)
	for n, cells := range t.rows {
		var line strings.Builder
		gap := 0
		for i, c := range cells {
			c = middleCut(c, widths[i])
			pad := widths[i] - runewidth.StringWidth(c) + columnGap
			if c == "" {
				gap += pad
				continue
			}
			line.WriteString(strings.Repeat(" ", gap))
			gap = pad
			if colours {
				c = t.paint(n, i, c)
			}
			line.WriteString(c)
		}
		line.WriteByte('\n')
		_, _ = out.WriteString(line.String()) // Flush keeps the error
	}
	t.rows = nil
	return out.Flush()
}

// widths returns how wide the columns are: as wide as their widest cells, or less where the
// terminal is too narrow.
func (t *table) widths() []int {
	var widths []int
	for _, cells := range t.rows {
		for i, c := range cells {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], runewidth.StringWidth(c))
		}
	}
	room := term.Width(t.out)
	if room == 0 {
		return widths
	}
	cut := widths
	if t.endsWithReason() { // a reason is read to its end, on a second line if need be
		cut = widths[:len(widths)-1]
		room -= columnGap + min(widths[len(widths)-1], minReason)
	}
	for len(cut) > 0 && sum(cut)+columnGap*(len(cut)-1) > room {
		widest := slices.Index(cut, slices.Max(cut))
		if cut[widest] <= minColumn {
			break
		}
		cut[widest]--
	}
	return widths
}

// endsWithReason reports whether the last column says why.
func (t *table) endsWithReason() bool {
	if !t.header {
		return false
	}
	names := t.rows[0]
	return slices.Contains([]string{"ERROR", "WHY", "DETAIL"}, names[len(names)-1])
}

func sum(all []int) int {
	n := 0
	for _, v := range all {
		n += v
	}
	return n
}

// middleCut shortens a text to so many columns of a terminal. Names of images differ at
// their ends, and begin with where they are.
func middleCut(s string, width int) string {
	if runewidth.StringWidth(s) <= width {
		return s
	}
	room := width - runewidth.StringWidth("…")
	head := runewidth.Truncate(s, room/2, "")
	tail := runewidth.TruncateLeft(s, runewidth.StringWidth(s)-room+runewidth.StringWidth(head), "")
	return head + "…" + tail
}

// paint gives a cell its colour: the names of columns are bold, and states are green, yellow
// or red.
func (t *table) paint(row, column int, cell string) string {
	switch {
	case !t.header:
		return cell
	case row == 0:
		return "\x1b[1m" + cell + "\x1b[0m"
	case t.rows[0][column] == "URI", t.rows[0][column] == "MATCH":
		return t.mark(cell)
	case !slices.Contains([]string{"STATE", "RESULT", "ERROR", "WHY"}, t.rows[0][column]):
		return cell
	}
	code := "31"
	if name := t.rows[0][column]; name == "STATE" || name == "RESULT" {
		code = stateColours[strings.TrimSpace(strings.SplitN(cell, ",", 2)[0])]
	}
	if code == "" || cell == "-" {
		return cell
	}
	return "\x1b[" + code + "m" + cell + "\x1b[0m"
}

// mark marks what was searched for.
func (t *table) mark(cell string) string {
	var out strings.Builder
	for lower := strings.ToLower(cell); cell != ""; {
		at, n := len(cell), 0
		for _, m := range t.marks {
			if i := strings.Index(lower, strings.ToLower(m)); m != "" && i >= 0 && (i < at || i == at && len(m) > n) {
				at, n = i, len(m)
			}
		}
		if len(lower) != len(cell) || n == 0 { // letters that change their length are marked by nobody
			return out.String() + cell
		}
		out.WriteString(cell[:at] + "\x1b[1;36m" + cell[at:at+n] + "\x1b[0m")
		cell, lower = cell[at+n:], lower[at+n:]
	}
	return out.String()
}

// stateColours are ANSI codes: green for what is here and well, yellow for what is on its
// way, red for what needs somebody.
var stateColours = map[string]string{
	"whole": "32", "cached": "32", "local": "32", "ok": "32",
	"partial": "33", "writing": "33", "sealed": "33", "publishing": "33", "kept": "33", "no": "33", "warn": "33",
	"failed": "31", "bad": "31", "incomplete": "31", "refused": "31", "damaged": "31",
}

// coloured reports whether colours may be written.
func coloured(w io.Writer) bool {
	c, ok := w.(interface{ Coloured() bool })
	return ok && c.Coloured()
}
