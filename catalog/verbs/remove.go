// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
)

// Removable returns the image that Remove would delete: what the registry has now,
// not what it had a minute ago. A uri without a remote means the local one and no
// other.
//
// Errors: those of Resolve and of backends.Backend.Stat; spool.ErrInUse for an image
// that is still being uploaded.
func (v *transfers) Removable(ctx context.Context, uri string) (Record, error) {
	r, img, err := v.removable(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	return v.record(r.Name, img), nil
}

func (v *transfers) removable(ctx context.Context, uri string) (catalog.Remote, backends.Image, error) {
	r, img, err := v.named(ctx, uri, localRemote)
	if e, ok := errors.AsType[*backends.Error](err); ok && errors.Is(err, fs.ErrNotExist) {
		if id := v.onItsWay(e.Remote, e.Ref); id != "" {
			err = &backends.Error{Op: "delete", Remote: e.Remote, Ref: e.Ref,
				Err: fmt.Errorf("%w: it is still on its way to the registry (to give it up: sreg uploads discard %s)", spool.ErrInUse, id)}
		}
	}
	return r, img, err
}

// onItsWay returns the ID of an upload to a name, "" if there is none.
func (v *transfers) onItsWay(remote string, ref backends.Ref) string {
	s := v.cat.Opened()
	if s == nil || s.Spool == nil {
		return ""
	}
	for _, d := range s.Spool.Drafts() {
		if d.Target.Remote == remote && d.Target.Ref == ref && v.uploads.Pending(d.ID) {
			return d.ID
		}
	}
	return ""
}

// Remove deletes the image that uri names now: with a version in it exactly that
// one. If means is not empty, uri must still mean that version, the one that a
// person was asked about. It does not look at Policy.Delete, as it concerns this one
// image.
//
// Errors: those of Removable and Delete; fs.ErrNotExist if uri means another
// version.
func (v *transfers) Remove(ctx context.Context, uri, means string) (Record, error) {
	return v.removeBy(ctx, uri, means, v.cat.Delete)
}

// removeBy is Remove with what takes the name away.
func (v *transfers) removeBy(ctx context.Context, uri, means string, by func(context.Context, string, backends.Image) error) (Record, error) {
	r, img, err := v.removable(ctx, uri)
	if err != nil {
		return Record{}, err
	}
	if means != "" && img.Version != means {
		return Record{}, catalog.Moved(r.Name, img.Ref)
	}
	return v.record(r.Name, img), by(ctx, r.Name, img)
}

// named returns what uri names at the registry now, for a verb that changes
// something there.
func (v *transfers) named(ctx context.Context, uri, without string) (catalog.Remote, backends.Image, error) {
	r, ref, err := v.resolve(ctx, uri, without, Writing)
	if err != nil {
		return r, backends.Image{}, err
	}
	img, err := v.cat.Stat(ctx, r.Name, ref)
	img.Ref.Version = ref.Version
	return r, img, err
}

// Shared is an image that others have access to.
type Shared struct {
	Record Record `json:"image"`
	Link   string `json:"link"`           // where they find it
	With   string `json:"with,omitempty"` // the e-mail address that was given access; "" if the link is enough
}

// Share gives others access to the image that uri names now: anybody who has the link,
// or the person with that e-mail address. A uri without a remote means the default
// one and no other.
//
// Errors: those of Resolve and of backends.Sharer; errors.ErrUnsupported if
// the service cannot do that.
func (v *transfers) Share(ctx context.Context, uri, with string) (Shared, error) {
	// The link leads to what the registry has now, not to what it had a minute ago.
	r, img, err := v.named(ctx, uri, v.def)
	if err != nil {
		return Shared{}, err
	}
	link, err := r.Client.Share(ctx, img, with)
	v.cat.Note(r.Name, err)
	return Shared{Record: v.record(r.Name, img), Link: link, With: with}, err
}
