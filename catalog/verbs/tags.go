// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
)

// Tags are the tags of one image, and the older versions that its registry tells.
type Tags struct {
	Tags []Record `json:"tags"`
	// Unasked is why the registry was not asked, or did not answer: the tags are those that
	// are known here. "" if it answered.
	Unasked string `json:"unasked,omitempty"`
}

// TagsOptions say how much Tags asks for.
type TagsOptions struct {
	Long bool `json:"long,omitempty"` // what the list of tags does not tell: a request or two for each
}

// maxLong is how many tags are asked for at once.
const maxLong = 8

// Tags returns the tags of the image that uri names, whatever tag it says, in order, each
// followed by its older versions. The registry is asked for its list, a page for a request;
// what that does not tell of a tag is what was known before. Where it cannot be reached
// what is known is returned. A uri without a remote means the default one, or the one
// other that knows the image.
//
// Errors: those of Resolve; fs.ErrNotExist if there is no such image; those of
// backends.VersionLister and backends.Lister where nothing is known.
func (v *reader) Tags(ctx context.Context, uri string, o TagsOptions) (Tags, error) {
	r, ref, found, err := v.tagged(ctx, uri)
	if err != nil {
		return Tags{}, err
	}
	all := Tags{Tags: []Record{}, Unasked: found.unasked}
	if o.Long && found.unasked == "" {
		v.complete(ctx, r, found.images)
	}
	for _, img := range found.images {
		img.Ref.Collection, img.Ref.Name = ref.Collection, ref.Name
		all.Tags = append(all.Tags, v.record(r.Name, img))
	}
	slices.SortFunc(all.Tags, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Ref.Tag, b.Ref.Tag), boolCompare(a.Ref.Version != "", b.Ref.Version != ""), b.Modified.Compare(a.Modified))
	})
	return all, nil
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// foundTags are what was found of one image.
type foundTags struct {
	images  []backends.Image
	unasked string
}

// tagged finds the remote and the image that a uri means, by its tags.
func (v *reader) tagged(ctx context.Context, uri string) (catalog.Remote, backends.Ref, foundTags, error) {
	r, ref, err := v.resolve(ctx, uri, v.def, Writing)
	if err != nil {
		return r, ref, foundTags{}, err
	}
	u, err := backends.ParseURI(uri)
	if err != nil {
		return r, ref, foundTags{}, err
	}
	ref.Tag, ref.Version = "", ""
	found, err := v.tagsOf(ctx, r, ref)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, ref, found, err
	}
	if u.Bare && ref.Collection == backends.DefaultCollection {
		root := ref
		root.Collection = ""
		if found, err := v.tagsOf(ctx, r, root); err == nil {
			return r, root, found, nil
		}
	}
	if u.Remote != "" || u.Host != "" {
		return r, ref, found, err
	}
	for _, other := range v.cat.Remotes() {
		if other.Name != r.Name && !other.ByHost && len(v.knownTags(other, ref)) > 0 {
			if found, err := v.tagsOf(ctx, other, ref); err == nil {
				return other, ref, found, nil
			}
		}
	}
	return r, ref, found, err
}

// tagsOf asks a registry for the tags of an image.
func (v *reader) tagsOf(ctx context.Context, r catalog.Remote, ref backends.Ref) (foundTags, error) {
	var known []backends.Image
	if !r.Local() {
		known = v.knownTags(r, ref)
	}
	if r.Client == nil {
		return orKnown(known, r.Unopened())
	}
	var images []backends.Image
	err := error(nil)
	if r.Client.Caps().Has(backends.CanListVersions) {
		for img, failed := range r.Client.Versions(ctx, ref) {
			if err = failed; err == nil {
				images = append(images, img)
			}
		}
		v.cat.Note(r.Name, err)
	} else {
		images, err = v.tagsListed(ctx, r, ref)
	}
	switch {
	case err != nil && (catalog.Passing(err) || errors.Is(err, errors.ErrUnsupported)):
		return orKnown(known, err)
	case err != nil:
		return foundTags{}, err
	case len(images) == 0:
		return foundTags{}, &backends.Error{Op: "tags", Remote: r.Name, Subject: ref.String(), Err: backends.NotFound("no such image")}
	}
	return foundTags{images: withKnown(images, known)}, nil
}

// orKnown returns what is known of an image whose registry did not tell; err if nothing is.
func orKnown(known []backends.Image, err error) (foundTags, error) {
	if len(known) == 0 {
		return foundTags{}, err
	}
	return foundTags{images: known, unasked: err.Error()}, nil
}

// tagsListed takes the tags out of the listing of the collection.
func (v *reader) tagsListed(ctx context.Context, r catalog.Remote, ref backends.Ref) (images []backends.Image, err error) {
	for e, err := range v.cat.List(ctx, r.Name, ref.Collection) {
		if err != nil {
			return images, err
		}
		if e.Collection == "" && e.Image.Ref.Name == ref.Name {
			images = append(images, e.Image)
		}
	}
	return images, nil
}

// knownTags returns what is stored of the tags of an image.
func (v *reader) knownTags(r catalog.Remote, ref backends.Ref) (images []backends.Image) {
	s, err := v.cat.State()
	if err != nil {
		return nil
	}
	for _, e := range s.Index.Tags(r.Name, ref) {
		images = append(images, e.Image)
	}
	return images
}

// withKnown adds to images of which only the name was told what is known of them.
func withKnown(images, known []backends.Image) []backends.Image {
	byTag := make(map[string]backends.Image, len(known))
	for _, img := range known {
		byTag[img.Ref.Tag] = img
	}
	for i, img := range images {
		if k, ok := byTag[img.Ref.Tag]; ok && img.Version == "" && img.Ref.Version == "" {
			images[i] = k
		}
	}
	return images
}

// complete asks for each tag, except where the registry's list told all. What cannot be
// had stays as it is.
func (v *reader) complete(ctx context.Context, r catalog.Remote, images []backends.Image) {
	var g errgroup.Group
	g.SetLimit(maxLong)
	for i := range images {
		if r.Local() || images[i].Ref.Version != "" {
			continue
		}
		g.Go(func() error {
			return backends.Guard(v.log, func() error {
				if now, err := v.cat.Lookup(ctx, r.Name, images[i].Ref); err == nil {
					images[i] = now
				}
				return nil
			})
		})
	}
	_ = g.Wait() // nothing but a panic, which is logged
}

// Tag makes another tag of the same image mean what uri names now: with a version in it
// exactly that one. No bytes travel. With force it replaces what the tag means; that the
// tag means the same already is success. A uri without a remote means the local one.
//
// Errors: those of Resolve and of backends.Backend.Stat; fs.ErrInvalid for what is no tag;
// fs.ErrExist if the tag is taken; those of backends.Tagger.
func (v *transfers) Tag(ctx context.Context, uri, tag string, force bool) (Record, error) {
	to, err := backends.ParseRef("x:" + tag)
	if err != nil || to.Name != "x" || to.Version != "" {
		return Record{}, fmt.Errorf("%w: %q is no tag (a tag of the same image; \"sreg cp\" copies to another one)", fs.ErrInvalid, tag)
	}
	r, img, err := v.named(ctx, uri, localRemote)
	if err != nil {
		return Record{}, err
	}
	replaces := ""
	if force {
		replaces = backends.ReplaceAny
	}
	now, err := v.cat.Tag(ctx, r.Name, img, to.Tag, replaces)
	if err != nil {
		if errors.Is(err, fs.ErrExist) && !force {
			to.Collection, to.Name = img.Ref.Collection, img.Ref.Name
			err = &backends.Error{Op: "tag", Remote: r.Name, Ref: to, Err: errTaken}
		}
		return Record{}, err
	}
	return v.record(r.Name, now), nil
}

// Untag takes away the tag that uri says, and keeps the version. The rest is as with Remove.
//
// Errors: those of Remove; errors.ErrUnsupported where an image is kept no longer than its tag.
func (v *transfers) Untag(ctx context.Context, uri, means string) (Record, error) {
	return v.removeBy(ctx, uri, means, v.cat.Untag)
}
