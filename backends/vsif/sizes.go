// SPDX-License-Identifier: Apache-2.0

package vsif

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// sizesName is the name of the object that tells what else is needed to lay out the file
// again.
const sizesName = "oci-sif.json"

// sizes is the text of that object.
type sizes struct {
	Bounds []int64 `json:"bounds"`
	Tars   []int64 `json:"tars"`
}

func (s Source) sizes() ([]byte, error) { return encode(sizes{s.Bounds, s.Tars}) }

var errNotLaidOut = errors.New("no file of version 1 that was made of layers")

// ReadSource reads out of a file what it was made of, without believing any of it.
//
// Errors: those of r; an error for any other file.
func ReadSource(r io.ReaderAt) (Source, error) {
	head := make([]byte, headSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		return Source{}, err
	}
	var src Source
	var text []byte
	for i, to := range []*[]byte{&src.Manifest, &src.Config, &text} {
		d := head[sifHeader+(i+2)*sifDescriptor:][:sifDescriptor]
		offset, size := binary.LittleEndian.Uint64(d[17:]), binary.LittleEndian.Uint64(d[25:])
		if size > sizesRoom*maxConfig || offset > 1<<40 {
			return Source{}, errNotLaidOut
		}
		*to = make([]byte, size)
		if _, err := r.ReadAt(*to, int64(offset)); err != nil { //nolint:gosec // at most 1<<40
			return Source{}, err
		}
	}
	var s sizes
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&s); err != nil {
		return Source{}, fmt.Errorf("%w: %v", errNotLaidOut, err)
	}
	if len(s.Bounds) != len(s.Tars) {
		return Source{}, errNotLaidOut
	}
	src.Bounds, src.Tars = s.Bounds, s.Tars
	return src, nil
}
