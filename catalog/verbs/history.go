// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/records"
)

// A Meaning is what a tag meant for a while, as far as it was seen here.
type Meaning struct {
	URI     string    `json:"uri"` // of that version
	Tag     string    `json:"tag"`
	Version string    `json:"version"`
	Digest  string    `json:"digest,omitempty"`
	Size    int64     `json:"size"`  // bytes; -1 if not known
	First   time.Time `json:"first"` // when it was first seen to mean that
	Last    time.Time `json:"last"`  // and last, to an hour
}

// History yields what the tags of an image have meant, tag by tag, the newest first: of those
// that were opened, pulled or pinned here. If uri has a tag, only of that. It asks no
// registry. A uri without a remote means the default one, or all others that know more.
//
// Errors: those of Resolve.
func (v *reader) History(ctx context.Context, uri string) iter.Seq2[Meaning, error] {
	return func(yield func(Meaning, error) bool) {
		r, ref, err := v.resolve(ctx, uri, v.def, Writing)
		if err != nil {
			yield(Meaning{}, err)
			return
		}
		tagged := strings.Contains(uri[strings.LastIndexByte(uri, '/')+1:], ":")
		for _, m := range v.meanings(r.Name, ref, uri) {
			if tagged && m.Ref.Tag != ref.Tag {
				continue
			}
			if !yield(meaningOf(m), nil) {
				return
			}
		}
	}
}

// meanings returns the histories of an image or, where there are none and no collection or no
// remote was written, those of the image that may be meant.
func (v *reader) meanings(remote string, ref backends.Ref, uri string) []records.Meaning {
	all := v.cat.Records()
	found := all.Meanings(remote, ref)
	u, err := backends.ParseURI(uri)
	if len(found) > 0 || err != nil {
		return found
	}
	if u.Bare && ref.Collection == backends.DefaultCollection {
		root := ref
		root.Collection = ""
		found = all.Meanings(remote, root)
	}
	if u.Remote != "" || u.Host != "" {
		return found
	}
	for _, r := range v.cat.Remotes() {
		if r.Name != remote && !r.ByHost {
			found = append(found, all.Meanings(r.Name, ref)...)
		}
	}
	return found
}

func meaningOf(m records.Meaning) Meaning {
	ref := m.Ref
	ref.Version = m.Version
	return Meaning{
		URI: backends.URI{Remote: m.Remote, Ref: ref}.String(), Tag: m.Ref.Tag, Version: m.Version, Digest: m.Digest,
		Size: m.Size, First: m.First, Last: m.Last,
	}
}
