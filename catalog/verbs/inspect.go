// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// Inspection is what an image says of itself.
type Inspection struct {
	Record Record         `json:"image"`
	Facts  *inspect.Facts `json:"facts"`
}

// Inspect reads an image's own facts, by range, without downloading it; an image
// whose service cannot say how large it is has to be pulled for that.
//
// Errors: those of Resolve and Lookup, and of backends.Backend.Open.
func (v *reader) Inspect(ctx context.Context, uri string) (Inspection, error) {
	var found Inspection
	err := v.withImage(ctx, uri, func(r catalog.Remote, img backends.Image) (err error) {
		found, err = v.inspect(ctx, r, img, uri)
		return err
	})
	return found, err
}

func (v *reader) inspect(ctx context.Context, r catalog.Remote, img backends.Image, uri string) (Inspection, error) {
	facts, size, err := v.facts(ctx, r, img)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect %s: %w", uri, err)
	}
	if !r.Local() { // which are walked by each search
		v.keep(r, img, facts)
	}
	rec := v.record(r.Name, img)
	if rec.Size < 0 {
		rec.Size = size
	}
	rec.Path, err = v.pathOf(ctx, r, img)
	return Inspection{Record: rec, Facts: facts}, err
}

// facts reads those of an image, and its size.
func (v *reader) facts(ctx context.Context, r catalog.Remote, img backends.Image) (*inspect.Facts, int64, error) {
	if vsif.IsDigest(img.Digest) && r.Client != nil && v.cat.BlobInfo(r.Name, img).State != cache.Cached {
		layers, err := r.Client.Layers(ctx, img)
		if err != nil {
			return nil, 0, err
		}
		return inspect.Container(layers.Manifest, layers.Config), img.Size, nil
	}
	content, err := v.peek(ctx, r, img)
	if err != nil {
		return nil, 0, err
	}
	defer content.Close()
	facts, err := inspect.Read(ctx, content.r, content.size)
	return facts, content.size, err
}

// A peek reads ranges of an image, which inspect.Read keeps as long as it needs them. It does
// not make the cache fetch the whole.
type peek struct {
	io.Closer
	r    io.ReaderAt
	size int64
}

func (v *reader) peek(ctx context.Context, r catalog.Remote, img backends.Image) (peek, error) {
	if r.Client == nil {
		return peek{}, r.Unopened()
	}
	if r.InPlace(img) {
		f, err := r.Client.OpenFile(ctx, img)
		if err != nil {
			return peek{}, err
		}
		info, err := f.Stat()
		if err != nil {
			return peek{}, errors.Join(backends.DiskError("inspect", err), f.Close())
		}
		return peek{f, f, info.Size()}, nil
	}
	if img.Size < 0 || v.cat.BlobInfo(r.Name, img).State == cache.Cached {
		b, err := v.cat.Blob(ctx, r.Name, img)
		if err != nil {
			return peek{}, err
		}
		return peek{b, b, b.Size()}, nil
	}
	read := func(p []byte, off int64) (int, error) {
		body, err := r.Client.Open(ctx, img, off, int64(len(p)))
		if err != nil {
			return 0, err
		}
		defer body.Close()
		return io.ReadFull(body, p)
	}
	return peek{io.NopCloser(nil), readerAt(read), img.Size}, nil
}

// readerAt makes an io.ReaderAt of a function.
type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// A Label is one label of one image.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	URI   string `json:"uri"` // of the image
}

// LabelsOptions say which labels Labels yields. What is empty means all.
type LabelsOptions struct {
	Key    string `json:"key,omitempty"`    // all of it, without regard to case
	Value  string `json:"value,omitempty"`  // likewise
	Remote string `json:"remote,omitempty"` // the only one looked at
}

// Labels yields the labels of images, in the order of Images: those in
// the registries' listings, and those within the images whose bytes are here, or that were
// inspected. Nothing is downloaded.
//
// Errors: those of Images. An image that cannot be read has no labels.
func (v *reader) Labels(ctx context.Context, o LabelsOptions) iter.Seq2[Label, error] {
	wanted := func(k, v string) bool {
		return (o.Key == "" || strings.EqualFold(k, o.Key)) && (o.Value == "" || strings.EqualFold(v, o.Value))
	}
	return func(yield func(Label, error) bool) {
		kept := v.keptTexts(o.Remote)
		for rec, err := range v.Images(ctx, ImagesOptions{Remote: o.Remote}) {
			if err != nil {
				yield(Label{}, err)
				return
			}
			labels := v.labelsOf(ctx, rec, kept)
			for _, k := range slices.Sorted(maps.Keys(labels)) {
				if wanted(k, labels[k]) && !yield(Label{Key: k, Value: labels[k], URI: rec.URI}, nil) {
					return
				}
			}
			if ctx.Err() != nil {
				yield(Label{}, ctx.Err())
				return
			}
		}
	}
}

// labelsOf returns the labels in the listing, overridden by those within the image if they are
// kept or its bytes are here.
func (v *reader) labelsOf(ctx context.Context, rec Record, kept map[string]index.Text) map[string]string {
	t, ok := kept[rec.URI]
	if !ok || t.Key != cache.KeyOf(rec.Remote, rec.image()) {
		t = v.readText(ctx, rec)
	}
	if len(t.Labels) == 0 {
		return rec.Labels
	}
	all := maps.Clone(rec.Labels)
	if all == nil {
		all = make(map[string]string)
	}
	maps.Copy(all, t.Labels)
	return all
}

// factsHere inspects an image's file; nil if there is none on this machine.
func (v *reader) factsHere(ctx context.Context, rec Record) (*inspect.Facts, error) {
	r, err := v.cat.Remote(rec.Remote)
	if err != nil || rec.State != cache.Cached {
		return nil, err
	}
	f, err := v.openHere(ctx, r, rec.image())
	if err != nil || f == nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return inspect.Read(ctx, f, info.Size())
}
