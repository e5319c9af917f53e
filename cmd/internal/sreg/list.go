// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/term"
)

// A column is one cell in the rows of a list.
type column[T any] struct {
	name string         // "SIZE"; for programs in lower case
	text func(T) string // for people
	data func(T) any    // for programs: numbers as numbers; nil if that is the text
}

// value is what a program gets of a cell.
func (c column[T]) value(v T) any {
	if c.data == nil {
		return c.text(v)
	}
	return c.data(v)
}

// printAll prints a list as -o, --format, --sort and --limit ask for it. Every list of a
// command goes through it, so that all can be printed in each form. -o name prints the
// column URI, IMAGE, NAME or REMOTE, or else the first.
//
// What came before an error is printed, too. A list of nothing says so on the standard
// error: in app.nothing, if that is set.
func printAll[T any](a *app, all iter.Seq2[T, error], columns ...column[T]) error {
	all, err := chosenOf(a, all, columns)
	if err != nil {
		return err
	}
	if a.format != asJSON {
		return printTable(a, all, columns)
	}
	switch a.encoding {
	case inCSV:
		return writeCSV(a.out, all, columns)
	case inNames, inTemplate:
		return printEach(a, all, columns)
	}
	return a.printArray(anyOf(all))
}

// chosenOf sorts and cuts a list. Only a list that is sorted is read to its end first.
func chosenOf[T any](a *app, all iter.Seq2[T, error], columns []column[T]) (iter.Seq2[T, error], error) {
	if a.limit < 0 {
		return nil, usagef("--limit %d: how many there may be: 1 or more", a.limit)
	}
	if a.sort != "" {
		order, err := orderOf(a.sort, columns)
		if err != nil {
			return nil, err
		}
		all = sorted(all, order)
	}
	if a.limit == 0 {
		return all, nil
	}
	return func(yield func(T, error) bool) {
		n := 0
		for v, err := range all {
			n++
			if !yield(v, err) || n == a.limit {
				return
			}
		}
	}, nil
}

// orderOf reads the flag --sort.
func orderOf[T any](text string, columns []column[T]) (func(x, y T) int, error) {
	name, direction, _ := strings.Cut(strings.ToLower(text), ":")
	var known []string
	for _, c := range columns {
		known = append(known, fieldName(c.name))
	}
	i := slices.Index(known, name)
	if name == "name" && i < 0 {
		i = nameColumn(columns)
	}
	if i < 0 || !slices.Contains([]string{"", "asc", "desc"}, direction) {
		return nil, usagef("--sort %s: say a column, and perhaps :desc; the columns are %s", text, strings.Join(known, ", "))
	}
	return func(x, y T) int {
		n := compareData(columns[i].value(x), columns[i].value(y))
		if direction == "desc" {
			return -n
		}
		return n
	}, nil
}

func compareData(x, y any) int {
	switch x := x.(type) {
	case int:
		return cmp.Compare(x, y.(int))
	case int64:
		return cmp.Compare(x, y.(int64))
	case float64:
		return cmp.Compare(x, y.(float64))
	case time.Time:
		return x.Compare(y.(time.Time))
	}
	return cmp.Compare(fmt.Sprint(x), fmt.Sprint(y))
}

// sorted is a list in order, and at last its error.
func sorted[T any](all iter.Seq2[T, error], order func(x, y T) int) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var list []T
		var failed error
		for v, err := range all {
			if err != nil {
				failed = err
				break
			}
			list = append(list, v)
		}
		slices.SortStableFunc(list, order)
		for _, v := range list {
			if !yield(v, nil) {
				return
			}
		}
		if failed != nil {
			var zero T
			yield(zero, failed)
		}
	}
}

// fieldName is a column's name for programs.
func fieldName(column string) string { return strings.ReplaceAll(strings.ToLower(column), " ", "_") }

// nameColumn is the column that says what a thing is called.
func nameColumn[T any](columns []column[T]) int {
	named := func(c column[T]) bool { return slices.Contains([]string{"URI", "IMAGE", "NAME", "REMOTE"}, c.name) }
	return max(slices.IndexFunc(columns, named), 0)
}

// printEach prints a line for each of a list: its name, or what --format makes of it.
func printEach[T any](a *app, all iter.Seq2[T, error], columns []column[T]) error {
	name := columns[nameColumn(columns)]
	for v, err := range all {
		if err != nil {
			return err
		}
		if a.encoding == inTemplate {
			err = a.execute(v)
		} else {
			_, err = fmt.Fprintln(a.out, backends.Printable(fmt.Sprint(name.value(v))))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeCSV writes a header and a row for each of a list (RFC 4180).
func writeCSV[T any](w io.Writer, all iter.Seq2[T, error], columns []column[T]) error {
	out := csv.NewWriter(w)
	row := make([]string, len(columns))
	for i, c := range columns {
		row[i] = fieldName(c.name)
	}
	_ = out.Write(row) // Flush keeps the error
	var failed error
	for v, err := range all {
		if failed = err; err != nil {
			break
		}
		for i, c := range columns {
			row[i] = csvCell(c.value(v))
		}
		_ = out.Write(row)
	}
	out.Flush()
	return firstError(out.Error(), failed)
}

func csvCell(v any) string {
	if t, ok := v.(time.Time); ok {
		if t.IsZero() {
			return ""
		}
		return t.Format(time.RFC3339)
	}
	return backends.Printable(fmt.Sprint(v))
}

// printTable is printAll for people.
func printTable[T any](a *app, all iter.Seq2[T, error], columns []column[T]) error {
	header := make([]string, len(columns))
	for i, c := range columns {
		header[i] = c.name
	}
	t := newTable(a.out, header...)
	t.marks = a.marks
	ages := term.Is(a.out) // "3 days ago"; a list of nothing has a header for programs only
	var failed error
	n := 0
	for v, err := range all {
		if failed = err; err != nil {
			break
		}
		n++
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = c.text(v)
			if when, ok := c.value(v).(time.Time); ok && ages && cells[i] != "" {
				cells[i] = humanize.Time(when)
			}
		}
		t.row(cells...)
	}
	if n == 0 && failed == nil {
		a.notice(cmp.Or(a.nothing, "there is nothing to list"))
	}
	if n == 0 && (ages || failed != nil) {
		return failed
	}
	return firstError(t.flush(), failed)
}

// printArray prints values as an array, which is empty rather than null.
func (a *app) printArray(all iter.Seq2[any, error]) error {
	array := []any{}
	var failed error
	for v, err := range all {
		if failed = err; err != nil {
			break
		}
		array = append(array, v)
	}
	return firstError(a.printJSON(array), failed)
}

func anyOf[T any](all iter.Seq2[T, error]) iter.Seq2[any, error] {
	return func(yield func(any, error) bool) {
		for v, err := range all {
			if !yield(v, err) {
				return
			}
		}
	}
}

// allOf is a list that is known as a whole.
func allOf[T any](all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}
