// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/verbs"
)

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
