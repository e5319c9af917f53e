// SPDX-License-Identifier: Apache-2.0

// Package inspect reads what an image file says of itself: its format, whether
// it is whole, a SIF's labels, definition file, scripts, environment and
// signatures, and the configuration of a container image in an OCI archive. It reads by range through an io.ReaderAt, needs no Singularity,
// and trusts nothing in the file: sizes are checked before anything is
// allocated, and a panic of a parser becomes an error.
//
// It runs nothing. Start at [Read], [Facts.Verify] and [Complete].
package inspect

import (
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
)

// What Complete refuses.
var (
	// ErrIncomplete: the file begins as an image but is not all of one. It is a
	// backends.ErrCorrupt too.
	ErrIncomplete error = &refusal{"not a whole image", backends.ErrCorrupt}
	// ErrNotImage: the file is nothing that can be run. It is an fs.ErrInvalid too.
	ErrNotImage error = &refusal{"not an image", fs.ErrInvalid}
)

// A refusal is an error that stands for another one without its text.
type refusal struct {
	text string
	kin  error
}

func (r *refusal) Error() string        { return r.text }
func (r *refusal) Is(target error) bool { return target == r.kin }

// Facts is what an image says of itself.
type Facts struct {
	Format      string            `json:"format"` // "sif", "simg" (bare squashfs), "oci.tar", "ext3", "img.gz" (ext3 in gzip), "gzip", "unknown"
	Arch        string            `json:"arch,omitempty"`
	ID          string            `json:"id,omitempty"`
	Created     string            `json:"created,omitempty"` // RFC 3339
	Launch      string            `json:"launch,omitempty"`  // first line of the file
	Descriptors []Descriptor      `json:"descriptors,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Definition  string            `json:"definition,omitempty"`
	RunScript   string            `json:"runscript,omitempty"`
	StartScript string            `json:"startscript,omitempty"`
	Test        string            `json:"test,omitempty"`
	Help        string            `json:"help,omitempty"`
	Environment map[string]string `json:"environment,omitempty"` // file name in .singularity.d/env to its text
	Signatures  []Signature       `json:"signatures,omitempty"`

	Verification *Verification `json:"verification,omitempty"` // by Verify
	Config       *Config       `json:"config,omitempty"`       // of a container image
	Layers       []Layer       `json:"layers,omitempty"`       // likewise, and so the next two
	History      []Step        `json:"history,omitempty"`
	Base         *Base         `json:"base,omitempty"`
	Notes        []string      `json:"notes,omitempty"` // what could not be read, and why

	texts int // bytes taken so far
}

// Descriptor is one object of a SIF.
type Descriptor struct {
	ID     uint32 `json:"id"`
	Type   string `json:"type"`
	Name   string `json:"name,omitempty"`
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
	FS     string `json:"fs,omitempty"`     // of a partition
	Part   string `json:"part,omitempty"`   // kind of partition
	Detail string `json:"detail,omitempty"` // of a blob its digest, else the format
}

// Signature is one signature block. Read does not verify it, Verify does.
type Signature struct {
	Fingerprint string   `json:"fingerprint"` // as the block says; "" of a key that is no OpenPGP key
	Objects     []uint32 `json:"objects,omitempty"`
	Legacy      bool     `json:"legacy,omitempty"` // it protects neither header nor descriptors
	Verified    bool     `json:"verified,omitempty"`
	Signer      string   `json:"signer,omitempty"` // whose key it is, once verified
	Key         string   `json:"key,omitempty"`    // where that was found
	Reason      string   `json:"reason,omitempty"` // why it is not verified

	id   uint32 // of its object
	dsse bool
}

// Read returns the facts of the image that r holds. A file that is no image at
// all gives Format "unknown" and no error; a broken one gives what could be read,
// with Notes. If r has a method ReadAtContext, as cache.Blob has, that is called
// with ctx, else ctx is looked at between reads. Few and small ranges are read,
// and whatever the file claims, not much memory is taken.
//
// Errors: those of r; ctx's.
func Read(ctx context.Context, r io.ReaderAt, size int64) (*Facts, error) {
	p := newPager(ctx, r, size)
	f := &Facts{Format: "unknown"}
	err := guard(func() error { f.read(p); return nil })
	if err != nil {
		f.note("the image", err)
	}
	return f, p.err
}

// Complete reports whether r holds a whole image, and in which format ("sif" or
// "simg"): every object of a SIF and the whole squashfs lie within size, and
// their tables are there. It reads a few kilobytes.
//
// Errors: ErrIncomplete, ErrNotImage, with what is wrong; those of r.
func Complete(r io.ReaderAt, size int64) (format string, err error) {
	p := newPager(context.Background(), r, size)
	if recovered := guard(func() error { format, err = complete(p); return nil }); recovered != nil {
		err = fmt.Errorf("%w: %v", ErrNotImage, recovered)
	}
	if p.err != nil {
		return "", p.err // that says nothing about the image
	}
	return format, err
}

// Hot returns the ranges that are read first when the image is run: the head,
// and the squashfs tables at the end, in order, not overlapping, and 8 MiB at
// most. On anything unexpected it returns head and tail.
func Hot(ctx context.Context, r io.ReaderAt, size int64) []Range {
	p := newPager(ctx, r, size)
	var hot []Range
	err := guard(func() (err error) { hot, err = hotRanges(p); return err })
	if err != nil || p.err != nil {
		hot = []Range{{0, hotHead}, {size - hotTail, hotTail}}
	}
	return tidy(hot, size)
}

// A Range is n bytes from off.
type Range struct{ Off, N int64 }

// guard turns a panic of a parser into an error: an image must not end the
// program that looks at it.
func guard(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the parser gave up: %v", v)
		}
	}()
	return fn()
}
