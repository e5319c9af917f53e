// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"iter"

	"github.com/sregfs/sregfs/backends"
)

// A Historian is a VersionKeeper that lists what it keeps.
type Historian interface {
	VersionKeeper

	// History yields what List does, without the folders, and the versions of it that were
	// replaced, which are Older.
	//
	// Errors: those of List.
	History(ctx context.Context, folder, prefix string) iter.Seq2[File, error]
}

// An Archive tells versions: backends.VersionLister.
type Archive struct {
	read *Reader
	from Historian
}

// NewArchive returns an Archive of the store of r, which is h.
func NewArchive(r *Reader, h Historian) *Archive { return &Archive{read: r, from: h} }

// Versions implements backends.VersionLister.
func (a *Archive) Versions(ctx context.Context, ref backends.Ref) iter.Seq2[backends.Image, error] {
	return func(yield func(backends.Image, error) bool) {
		now, older, err := a.collect(ctx, ref)
		if err == nil && len(now)+len(older) == 0 {
			err = backends.NotFound("no such image")
		}
		if err != nil {
			yield(backends.Image{}, err)
			return
		}
		told := map[place]bool{}
		for tag, all := range now {
			a.read.sort(all)
			told[place{tag, all[0].Version}] = true
			if !yield(a.read.entry(tag, all[0]), nil) {
				return
			}
		}
		for _, f := range older {
			tag, _ := a.read.Ref(f.Path)
			tag.Version = ""
			at := place{tag, f.Version}
			if told[at] || f.Version == "" {
				continue
			}
			told[at] = true
			img := a.read.entry(tag, f)
			img.Ref.Version = f.Version
			if !yield(img, nil) {
				return
			}
		}
	}
}

// collect returns what the tags of ref's image mean, and what they meant before.
func (a *Archive) collect(ctx context.Context, ref backends.Ref) (now map[backends.Ref][]File, older []File, err error) {
	now = map[backends.Ref][]File{}
	err = a.read.eachOf(ctx, a.from.History, ref.Collection, a.read.begins(ref.Name), func(f File) error {
		p, ok := a.read.Parse(base(f))
		switch tag := (backends.Ref{Collection: ref.Collection, Name: p.Name, Tag: p.Tag}); {
		case !ok || f.Folder || p.Name != ref.Name:
		case f.Older:
			older = append(older, f)
		default:
			now[tag] = append(now[tag], f)
		}
		return nil
	})
	return now, older, err
}
