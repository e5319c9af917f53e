// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"fmt"
	"html"
	"strings"
	"unicode/utf8"
)

// Measures of the plot, in pixels. All text is of one size, and wide enough
// columns are left for it: nothing is laid out by the viewer.
const (
	plotWidth   = 1010
	rowHeight   = 20
	headHeight  = 34
	topHeight   = 64
	nameColumn  = 16
	whoColumn   = 318
	barColumn   = 506
	barWidth    = 220 // twice the target
	textColumn  = barColumn + barWidth + 14
	charWidth   = 6.3 // of the widest usual font at this size, on average
	bottomSpace = 16
)

// plotStyle has one set of colours for light and one for dark pages. Met and
// missed differ in brightness, too, and each bar says in words which it is.
const plotStyle = `text{font:11.5px "DejaVu Sans","Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.bg{fill:#ffffff}.title{font-size:15px;font-weight:bold}.head{font-size:12.5px;font-weight:bold}.quiet{fill:#59636e}
.track{fill:#eef1f4}.met{fill:#1f7a4d}.missed{fill:#e0703a}.goal{stroke:#1f2328;stroke-width:1.5}.rule{stroke:#d1d9e0}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.bg{fill:#0d1117}.quiet{fill:#9198a1}.track{fill:#1c232c}
.met{fill:#3fa36c}.missed{fill:#f08c55}.goal{stroke:#e6edf3}.rule{stroke:#3d444d}}`

// plot draws a bar for each result that has a target: how good it is, as a
// share of the target, which is the same line for all.
func (b *bench) plot() string {
	var w strings.Builder
	y := topHeight
	for _, heading := range b.headings() {
		rows := judgedRows(b.table(heading))
		if len(rows) == 0 {
			continue
		}
		y += headHeight
		fmt.Fprintf(&w, `<text class="head" x="%d" y="%d">%s</text><line class="rule" x1="%d" x2="%d" y1="%d" y2="%d"/>`+"\n",
			nameColumn, y-10, html.EscapeString(plain(heading)), nameColumn, plotWidth-nameColumn, y-3, y-3)
		last := ""
		for _, r := range rows {
			name := r.name
			if name == last {
				name = ""
			}
			last = r.name
			b.plotRow(&w, r, name, y)
			y += rowHeight
		}
	}
	height := y + bottomSpace
	goal := barColumn + barWidth/2
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">
<title>sregfs: measured against its targets</title>
<style>%s</style>
<rect class="bg" width="%d" height="%d"/>
<text class="title" x="%d" y="28">Measured against the targets</text>
<text class="quiet" x="%d" y="48">A bar that reaches the line meets its target; bars end at twice the target.</text>
<text class="quiet" x="%d" y="%d" text-anchor="middle">target</text>
%s<line class="goal" x1="%d" x2="%d" y1="%d" y2="%d"/>
</svg>
`, plotWidth, height, plotWidth, height, plotStyle, plotWidth, height, nameColumn, nameColumn,
		goal, topHeight+12, w.String(), goal, goal, topHeight+18, height-bottomSpace+4)
}

func (b *bench) plotRow(w *strings.Builder, r *result, name string, y int) {
	share, text := b.share(r)
	class := "met"
	if !*r.met {
		class, text = "missed", text+", missed"
	}
	base := y + 14
	fmt.Fprintf(w, `<text x="%d" y="%d">%s</text>`, nameColumn, base, fit(plain(name), whoColumn-nameColumn))
	fmt.Fprintf(w, `<text class="quiet" x="%d" y="%d">%s</text>`, whoColumn, base, fit(r.subject, barColumn-whoColumn))
	fmt.Fprintf(w, `<rect class="track" x="%d" y="%d" width="%d" height="12"/>`, barColumn, y+4, barWidth)
	fmt.Fprintf(w, `<rect class="%s" x="%d" y="%d" width="%.1f" height="12"/>`, class, barColumn, y+4, min(share/2, 1)*barWidth)
	fmt.Fprintf(w, `<text x="%d" y="%d">%s</text>`+"\n", textColumn, base, fit(text, plotWidth-textColumn))
}

// share returns how good a result is as a share of its target, 1 being just
// met, and says both in figures.
func (b *bench) share(r *result) (float64, string) {
	value, unit := r.median(), " "+r.unit
	if ratio, ok := b.ratio(r); ok {
		value, unit = ratio, " of "+r.base
	}
	text := figure(value) + unit + " (" + sign(r.lower) + " " + figure(r.goal) + ")"
	switch {
	case !r.lower && r.goal != 0:
		return value / r.goal, text
	case r.lower && value > 0:
		return r.goal / value, text
	}
	return 0, text
}

func judgedRows(all []*result) []*result {
	var rows []*result
	for _, r := range all {
		if r.met != nil && r.goal != 0 && len(r.runs) > 0 {
			rows = append(rows, r)
		}
	}
	return rows
}

// fit escapes text and cuts it where it would run into the next column.
func fit(text string, width int) string {
	if most := int(float64(width-8) / charWidth); utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most-1]) + "…"
	}
	return html.EscapeString(text)
}

// plain takes the Markdown out of a heading.
func plain(text string) string { return strings.ReplaceAll(text, "`", "") }
