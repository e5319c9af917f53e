// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

//go:embed report.tmpl
var reportText string

var reports = template.Must(template.New("").Funcs(template.FuncMap{"join": strings.Join}).Parse(reportText))

// A table is all under one heading, the results of one name together.
type table struct {
	Heading string
	Results []*result
	Rows    [][]string // what, who, median, spread, ratio, target, verdict
	Notes   []string
}

// tables returns the tables in the order in which they were first added to.
func (b *bench) tables() (all []*table) {
	of := func(heading string) *table {
		i := slices.IndexFunc(all, func(t *table) bool { return t.Heading == heading })
		if i < 0 {
			i, all = len(all), append(all, &table{Heading: heading})
		}
		return all[i]
	}
	for _, r := range b.Results {
		t := of(r.Suite)
		at := len(t.Results)
		for i, other := range t.Results {
			if other.Name == r.Name {
				at = i + 1
			}
		}
		t.Results = slices.Insert(t.Results, at, r)
	}
	for _, n := range b.Notes {
		t := of(n.Suite)
		t.Notes = append(t.Notes, n.Text)
	}
	for _, t := range all {
		for i, r := range t.Results {
			row := b.row(r)
			if i > 0 && t.Results[i-1].Name == r.Name {
				row[0] = ""
			}
			t.Rows = append(t.Rows, row)
		}
	}
	return all
}

func (b *bench) row(r *result) []string {
	median, spread, of, verdict := "no figure", "", "", ""
	if len(r.Runs) > 0 {
		median = figure(r.median()) + " " + string(r.Unit)
		spread = figure(slices.Min(r.Runs)) + " – " + figure(slices.Max(r.Runs))
	}
	if _, ok := b.ratio(r); ok {
		of = b.reached(r)
	}
	if r.Met != nil {
		verdict = "MISSED"
		if *r.Met {
			verdict = "met"
		}
	}
	return []string{r.Name, string(r.Subject), median, spread, of, r.Target, verdict}
}

// reached is what a target is compared with: the ratio, or the figure.
func (b *bench) reached(r *result) string {
	if ratio, ok := b.ratio(r); ok {
		return figure(ratio) + " of " + string(r.Base)
	}
	return figure(r.median()) + " " + string(r.Unit)
}

// report writes all tables as a terminal shows them, and benchmarks.md with
// benchmarks.svg into a directory, where one is named.
func (b *bench) report(docs string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	_, _ = io.WriteString(w, fill("terminal", b.tables())) // what fails, Flush says, too
	if docs == "" {
		return w.Flush()
	}
	return errors.Join(w.Flush(), b.document(docs))
}

func (b *bench) document(dir string) error {
	return errors.Join(os.WriteFile(filepath.Join(dir, "benchmarks.md"), []byte(b.page()), 0o644),
		os.WriteFile(filepath.Join(dir, "benchmarks.svg"), []byte(b.plot()), 0o644))
}

// judged returns how many results have a verdict, and those that missed their
// target.
func (b *bench) judged() (n int, missed []*result) {
	for _, r := range b.Results {
		if r.Met != nil {
			n++
			if !*r.Met {
				missed = append(missed, r)
			}
		}
	}
	return n, missed
}

// page returns the report as Markdown.
func (b *bench) page() string {
	n, missed := b.judged()
	var rows [][]string
	for _, r := range missed {
		rows = append(rows, []string{r.Suite, r.Name, string(r.Subject), b.reached(r), r.Target})
	}
	tables := b.tables()
	for _, t := range tables {
		for _, row := range t.Rows {
			if row[6] == "MISSED" {
				row[6] = "**missed**"
			}
		}
	}
	return fill("page", map[string]any{"Bench": b, "Judged": n, "Met": n - len(missed), "Missed": rows, "Tables": tables})
}

// A bar is a row of the plot, or the heading above some where it has no Class.
// Its texts are escaped.
type bar struct {
	Y                              int
	Name, Who, Text, Class, Length string
}

// plot draws a bar for each result that has a target: how good it is, as a share
// of the target, which is the same line for all. Columns are wide enough for
// their texts: the viewer lays nothing out.
func (b *bench) plot() string {
	var bars []bar
	y := 64
	for _, t := range b.tables() {
		headed, last := false, ""
		for _, r := range t.Results {
			if r.Met == nil || r.Goal == 0 || len(r.Runs) == 0 {
				continue
			}
			if !headed {
				y += 34
				bars, headed = append(bars, bar{Y: y - 10, Name: fit(t.Heading, 994)}), true
			}
			one := b.bar(r)
			if r.Name == last {
				one.Name = ""
			}
			one.Y, last = y, r.Name
			bars, y = append(bars, one), y+20
		}
	}
	return fill("plot", map[string]any{"Bars": bars, "Height": y + 16, "Bottom": y + 4})
}

func (b *bench) bar(r *result) bar {
	value, share, class, verdict := r.median(), 0.0, "met", ""
	if ratio, ok := b.ratio(r); ok {
		value = ratio
	}
	switch {
	case !r.Unit.lower():
		share = value / r.Goal
	case value > 0:
		share = r.Goal / value
	}
	if !*r.Met {
		class, verdict = "missed", ", missed"
	}
	text := b.reached(r) + " (" + r.Unit.sign() + " " + figure(r.Goal) + ")" + verdict
	return bar{
		Name: fit(r.Name, 302), Who: fit(string(r.Subject), 188), Text: fit(text, 270),
		Class: class, Length: fmt.Sprintf("%.1f", min(share/2, 1)*220),
	}
}

// fit takes the Markdown out of text, escapes it for XML, and cuts it where it
// would run into the next column, which is width pixels away.
func fit(text string, width int) string {
	const charWidth = 6.3 // pixels, of the widest usual font, on average
	text = strings.ReplaceAll(text, "`", "")
	if most := int(float64(width-8) / charWidth); utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most-1]) + "…"
	}
	return template.HTMLEscapeString(text)
}

func fill(name string, data any) string {
	var w strings.Builder
	if err := reports.ExecuteTemplate(&w, name, data); err != nil {
		panic(err) // the template is wrong
	}
	return w.String()
}

// figure prints a number with three digits that matter, and with commas.
func figure(v float64) string {
	switch {
	case v >= 100 || v == math.Trunc(v):
		return humanize.Comma(int64(math.RoundToEven(v)))
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
}
