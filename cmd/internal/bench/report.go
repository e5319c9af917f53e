// SPDX-License-Identifier: Apache-2.0

//go:build linux

package bench

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// headings returns the headings of the tables, in the order in which they were
// first added.
func (b *bench) headings() []string {
	var all []string
	for _, r := range b.results {
		if !slices.Contains(all, r.suite) {
			all = append(all, r.suite)
		}
	}
	for _, n := range b.notes {
		if !slices.Contains(all, n.Suite) {
			all = append(all, n.Suite)
		}
	}
	return all
}

// table returns the results under one heading, those of one name together.
func (b *bench) table(heading string) []*result {
	var order []string
	byName := make(map[string][]*result)
	for _, r := range b.results {
		if r.suite != heading {
			continue
		}
		if byName[r.name] == nil {
			order = append(order, r.name)
		}
		byName[r.name] = append(byName[r.name], r)
	}
	var all []*result
	for _, name := range order {
		all = append(all, byName[name]...)
	}
	return all
}

// cells returns a row of the table: what, who, median, spread, ratio, target,
// verdict.
func (b *bench) cells(r *result) []string {
	median, spread := "no figure", ""
	if len(r.runs) > 0 {
		median = figure(r.median()) + " " + r.unit
		spread = figure(slices.Min(r.runs)) + " – " + figure(slices.Max(r.runs))
	}
	of := ""
	if ratio, ok := b.ratio(r); ok {
		of = figure(ratio) + " of " + r.base
	}
	return []string{r.name, r.subject, median, spread, of, r.target, verdict(r)}
}

func verdict(r *result) string {
	switch {
	case r.met == nil:
		return ""
	case *r.met:
		return "met"
	default:
		return "MISSED"
	}
}

// print writes all tables as a terminal shows them.
func (b *bench) print(w io.Writer) error {
	for _, heading := range b.headings() {
		fmt.Fprintf(w, "\n%s\n", heading)
		tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		last := ""
		for _, r := range b.table(heading) {
			cells := b.cells(r)
			if r.name == last {
				cells[0] = ""
			}
			last = r.name
			fmt.Fprintln(tw, "  "+strings.Join(cells, "\t"))
		}
		if err := tw.Flush(); err != nil {
			return err
		}
		for _, n := range b.notes {
			if n.Suite == heading {
				fmt.Fprintf(w, "  %s\n", n.Text)
			}
		}
	}
	return nil
}

// missed returns what was aimed for and not reached.
func (b *bench) missed() []*result {
	var all []*result
	for _, r := range b.results {
		if r.met != nil && !*r.met {
			all = append(all, r)
		}
	}
	return all
}

// judged returns how many results have a verdict.
func (b *bench) judged() int {
	n := 0
	for _, r := range b.results {
		if r.met != nil {
			n++
		}
	}
	return n
}

// figure prints a number with three digits that matter, and with commas.
func figure(v float64) string {
	var text string
	switch {
	case v >= 100 || v == float64(int64(v)):
		text = strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		text = strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.1:
		text = strconv.FormatFloat(v, 'f', 2, 64)
	default:
		text = strconv.FormatFloat(v, 'g', 2, 64)
	}
	whole, part, _ := strings.Cut(text, ".")
	for i := len(whole) - 3; i > 0 && whole[i-1] != '-'; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if part != "" {
		whole += "." + part
	}
	return whole
}
