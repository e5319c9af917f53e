// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"iter"
	"strings"

	"github.com/sregfs/sregfs/backends"
)

// An Entry is one name in a collection: an image, or a collection in it.
type Entry struct {
	Name  string  `json:"name"` // as in a URI; that of a collection ends in a slash
	URI   string  `json:"uri"`
	Image *Record `json:"image,omitempty"` // nil: a collection
}

// EntriesOptions say where Entries looks.
type EntriesOptions struct {
	Remote     string `json:"remote"`
	Collection string `json:"collection,omitempty"` // "" means the top
}

// Entries yields what is directly in a collection, as a listing of its directory in a mount
// has it: what is known at once, else what the registry tells.
//
// Errors: those of catalog.List.
func (v *browser) Entries(ctx context.Context, o EntriesOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range v.cat.List(ctx, o.Remote, o.Collection) {
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if !yield(v.entry(o.Remote, e), nil) {
				return
			}
		}
	}
}

func (v *browser) entry(remote string, e backends.Entry) Entry {
	if e.Collection != "" {
		path := backends.EscapePath(e.Collection)
		return Entry{Name: path[strings.LastIndexByte(path, '/')+1:] + "/", URI: remote + "://" + path + "/"}
	}
	rec := v.record(remote, e.Image)
	name := e.Image.Ref
	name.Collection = ""
	return Entry{Name: strings.TrimPrefix(name.String(), "/"), URI: rec.URI, Image: &rec}
}
