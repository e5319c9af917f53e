// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// printJSON prints one value.
func (a *app) printJSON(v any) error { return writeJSON(a.out, v, "  ") }

// writeJSON writes one value, with control characters escaped: a terminal may show it.
func writeJSON(w io.Writer, v any, indent string) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", indent)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(backends.PrintableJSON(text.Bytes()))
	return err
}

// A table prints rows in columns. Its cells may come from a registry: they are
// escaped.
type table struct {
	out *bufio.Writer // the columns come out cell by cell
	w   *tabwriter.Writer
}

func newTable(w io.Writer, header ...string) *table {
	t := &table{out: bufio.NewWriterSize(w, 64<<10)}
	t.w = tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	if len(header) > 0 {
		t.row(header...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		// An empty cell in the middle would shift the columns for programs that split
		// at spaces.
		if cells[i] = backends.Printable(c); c == "" && i < len(cells)-1 {
			cells[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
}

func (t *table) flush() error { return errors.Join(t.w.Flush(), t.out.Flush()) }

// size is for people; -o json has the bytes.
func size(n int64) string {
	if n < 0 {
		return "?"
	}
	return humanize.IBytes(uint64(n))
}

// plural is a count of things.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// imagesAre is a count and its verb.
func imagesAre(n int) string {
	if n == 1 {
		return "1 image is"
	}
	return plural(n, "image") + " are"
}

func date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateOnly)
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// state is how much of an image is here, in one word.
func state(r verbs.Record) string {
	words := []string{string(r.State)}
	if r.Pinned {
		words = append(words, "pinned")
	}
	for _, run := range r.Runs {
		words = append(words, "run:"+run)
	}
	return strings.Join(words, ",")
}

// printRecord prints one image.
func (a *app) printRecord(r verbs.Record) error {
	if a.format == asJSON {
		return a.printJSON(r)
	}
	_, err := fmt.Fprintln(a.out, backends.Printable(r.URI))
	return err
}

// recordColumns are those of every list of images.
func recordColumns() []column[verbs.Record] {
	return []column[verbs.Record]{
		{"URI", func(r verbs.Record) string { return r.URI }, nil},
		{"SIZE", func(r verbs.Record) string { return size(r.Size) }, func(r verbs.Record) any { return r.Size }},
		{"STATE", state, nil},
		{"MODIFIED", func(r verbs.Record) string { return date(r.Modified) }, func(r verbs.Record) any { return r.Modified }},
	}
}

// printRecords prints images as they come.
func (a *app) printRecords(records iter.Seq2[verbs.Record, error]) error {
	return printAll(a, records, recordColumns()...)
}
