// SPDX-License-Identifier: Apache-2.0

package exit

import (
	"fmt"
	"io"
	"os"
)

// An Output is the standard output of a command. It keeps the first error, so that a
// full disk is one of the command whoever wrote the bytes, and whether he looked.
// It is for one goroutine at a time, like what it writes to.
type Output struct {
	*os.File
	Colours bool // whether it is a terminal that shows colours, and they are wanted

	used bool
	err  error
}

// NewOutput returns an output to f.
func NewOutput(f *os.File) *Output { return &Output{File: f} }

// Coloured reports Colours, of an io.Writer that may be another.
func (o *Output) Coloured() bool { return o.Colours }

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	return n, o.note(err)
}

// ReadFrom implements io.ReaderFrom.
func (o *Output) ReadFrom(r io.Reader) (int64, error) {
	n, err := o.File.ReadFrom(r)
	return n, o.note(err)
}

func (o *Output) note(err error) error {
	o.used = true
	if err != nil && o.err == nil {
		o.err = err
	}
	return err
}

// WriteString implements io.StringWriter.
func (o *Output) WriteString(s string) (int, error) { return o.Write([]byte(s)) }

// Close closes the file, which may be when its disk is found full, and returns the
// first error of all.
func (o *Output) Close() error {
	err := o.File.Close()
	switch {
	case o.err != nil:
		err = o.err
	case !o.used:
		err = nil // it may not even have been open
	}
	if err != nil {
		return WithCode(Failed, fmt.Errorf("standard output: %w", err))
	}
	return nil
}
