// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/records"
)

// A Run is something that wants one image for one name for as long as it takes.
type Run struct {
	Name   string    `json:"name"`
	Since  time.Time `json:"since"`  // of its first pin
	Images []string  `json:"images"` // URIs of what it has pinned, with their versions
}

// runs returns the runs that have pinned something, the oldest first.
func (v *reader) runs() []Run {
	all := []Run{}
	at := map[string]int{}
	for _, p := range v.cat.Records().RunPins() {
		i, known := at[p.Run]
		if !known {
			i = len(all)
			at[p.Run] = i
			all = append(all, Run{Name: p.Run, Since: p.Since})
		}
		ref := p.Image.Ref
		if ref.Version == "" {
			ref.Version = p.Image.Version
		}
		all[i].Images = append(all[i].Images, backends.URI{Remote: p.Remote, Ref: ref}.String())
	}
	return all
}

// PinFor makes what uri names mean what it means now, to all who read it here, until the
// run is released: "what it means now" is what the tree shows or, if another run has pinned
// the name already, what it means to that one. It outlives this process, and needs no
// registry. The bytes are kept in the cache as with Pin, and not downloaded.
//
// Errors: those of Pin; fs.ErrInvalid for a bad name of the run.
func (v *blobs) PinFor(ctx context.Context, run, uri string) (Record, error) {
	if err := records.CheckRun(run); err != nil {
		return Record{}, err
	}
	r, ref, err := v.Resolve(ctx, uri, Reading)
	if err != nil {
		return Record{}, err
	}
	img, err := v.cat.Lookup(ctx, r.Name, ref) // both of its forms are made of this one
	if err != nil {
		return Record{}, err
	}
	if r.Local() {
		return Record{}, fmt.Errorf("%w: %s is a file of this machine, and what it was is gone when the tag moves: name its version (sreg tags), or copy it", fs.ErrInvalid, uri)
	}
	if img, err = v.cat.PinFor(run, r.Name, img); err != nil {
		return Record{}, err
	}
	return v.record(r.Name, img), nil
}

// Release ends what PinFor did: for uri, or for all names of the run if that is empty. It
// yields them as they were pinned.
//
// Errors: those of Resolve; fs.ErrNotExist if there is no such run, or no such name of it.
func (v *blobs) Release(ctx context.Context, run, uri string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		released, err := v.release(ctx, run, uri)
		for _, p := range released {
			if !yield(v.record(p.Remote, p.Image), nil) {
				return
			}
		}
		if err != nil {
			yield(Record{}, err)
		}
	}
}

func (v *blobs) release(ctx context.Context, run, uri string) ([]records.RunPin, error) {
	if uri == "" {
		return v.cat.Release(run, nil)
	}
	r, ref, err := v.resolve(ctx, uri, v.def, Reading)
	if err != nil {
		return nil, err
	}
	return v.cat.Release(run, func(remote string, pinned backends.Ref) bool { return remote == r.Name && pinned == ref })
}
