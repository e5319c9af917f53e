// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"io"
	"iter"
)

// A column is one cell in the rows of a list.
type column[T any] struct {
	name string         // "SIZE"; for programs in lower case
	text func(T) string // for people
	data func(T) any    // for programs: numbers as numbers; nil if that is the text
}

// printAll prints a list as -o asks for it. Every list of a command goes through it, so
// that all can be printed in each form. A table's first column is what a thing is called.
//
// What came before an error is printed, too.
func printAll[T any](a *app, all iter.Seq2[T, error], columns ...column[T]) error {
	if a.format == asJSON {
		return a.printArray(anyOf(all))
	}
	return printTable(a.out, all, columns...)
}

// printTable is printAll for people.
func printTable[T any](w io.Writer, all iter.Seq2[T, error], columns ...column[T]) error {
	var header []string
	for _, c := range columns {
		header = append(header, c.name)
	}
	t := newTable(w, header...)
	var failed error
	for v, err := range all {
		if err != nil {
			failed = err
			break
		}
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = c.text(v)
		}
		t.row(cells...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	return failed
}

// printArray prints values as an array, which is empty rather than null.
func (a *app) printArray(all iter.Seq2[any, error]) error {
	array := []any{}
	var failed error
	for v, err := range all {
		if err != nil {
			failed = err
			break
		}
		array = append(array, v)
	}
	if err := a.printJSON(array); err != nil {
		return err
	}
	return failed
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
