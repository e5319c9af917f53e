// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// A Record is an image with all that is known of it here: what the commands print.
type Record struct {
	URI      string            `json:"uri"`
	Remote   string            `json:"remote"`
	Ref      backends.Ref      `json:"ref"`
	Size     int64             `json:"size"` // bytes; -1 if not known yet
	Digest   string            `json:"digest,omitempty"`
	Version  string            `json:"version,omitempty"`
	Modified time.Time         `json:"modified,omitzero"`
	Format   string            `json:"format,omitempty"`
	State    cache.State       `json:"state"`
	Pinned   bool              `json:"pinned,omitempty"`
	Runs     []string          `json:"runs,omitempty"` // that have pinned the name: it means what the first of them pinned
	Labels   map[string]string `json:"labels,omitempty"`
	URL      string            `json:"url,omitempty"`
	Path     string            `json:"path,omitempty"` // of the file with the bytes, if they are here whole
}

// record makes the record of an image, without Path.
func (v *browser) record(remote string, img backends.Image) Record {
	r := Record{
		URI: backends.URI{Remote: remote, Ref: img.Ref}.String(), Remote: remote, Ref: img.Ref,
		Size: img.Size, Digest: img.Digest, Version: img.Version, Modified: img.Modified,
		Format: img.Format, State: cache.Remote, Labels: img.Labels, URL: img.URL,
	}
	r.Runs = v.cat.RunsOf(remote, img.Ref)
	if img.Version != "" || img.Digest != "" {
		info := v.cat.BlobInfo(remote, img)
		r.State, r.Pinned = info.State, info.Pinned
	}
	return r
}

// image is the image that a record is of.
func (r *Record) image() backends.Image {
	return backends.Image{Ref: r.Ref, Size: r.Size, Digest: r.Digest, Version: r.Version, Modified: r.Modified}
}

// A browser looks for images and reads what is known of them. It changes nothing.
type browser struct {
	resolver
	log *slog.Logger
}

// ImagesOptions say which images Images yields.
type ImagesOptions struct {
	Query   string `json:"query,omitempty"`   // matched against the URI; "" means all
	Remote  string `json:"remote,omitempty"`  // the only one looked at; "" means all
	Refresh bool   `json:"refresh,omitempty"` // make listings that were never made or are out of date
}

// Images yields what is known, from the stored listings of all remotes or one,
// in the order of remote, collection, name and tag. A query is matched as a
// substring, or as a glob if it has * ? [ in it, against the URI without case.
// With Refresh, listings that were never made or are out of date are made first, of all
// collections. The error of one remote comes last.
//
// Errors: fs.ErrNotExist for an unknown remote; fs.ErrInvalid for a bad pattern;
// those of backends.Lister, joined.
func (v *browser) Images(ctx context.Context, o ImagesOptions) iter.Seq2[Record, error] {
	mode := catalog.StoredOnly
	if o.Refresh {
		mode = catalog.AllFresh
	}
	return v.images(ctx, o.Query, o.Remote, func(catalog.Remote) catalog.Crawl { return mode })
}

func (v *browser) images(ctx context.Context, query, remote string, mode func(catalog.Remote) catalog.Crawl) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		match, err := index.NewMatcher(query)
		if err != nil {
			yield(Record{}, err)
			return
		}
		remotes := v.cat.Remotes()
		if remote != "" {
			r, err := v.cat.Remote(remote)
			if err != nil {
				yield(Record{}, err)
				return
			}
			remotes = []catalog.Remote{r}
		}
		var errs []error
		more := true
		for _, r := range remotes {
			err := v.imagesOf(ctx, r, mode(r), match, func(rec Record) bool {
				more = yield(rec, nil)
				return more
			})
			if !more {
				return
			}
			errs = append(errs, v.missed(r, remote, err))
		}
		if err := errors.Join(errs...); err != nil {
			yield(Record{}, err)
		}
	}
}

// missed returns err, unless it only says that a remote which is in no configuration, and
// was not asked for by name, is out of reach.
func (v *browser) missed(r catalog.Remote, asked string, err error) error {
	if asked == "" && r.Guessed && r.Name != v.def && catalog.Passing(err) {
		v.log.Info("a remote was left out: it cannot be reached", "remote", r.Name, "err", err)
		return nil
	}
	return err
}

// imagesOf calls yield with the images of one remote until it returns false.
func (v *browser) imagesOf(ctx context.Context, r catalog.Remote, mode catalog.Crawl, match *index.Matcher, yield func(Record) bool) error {
	if r.Local() {
		return v.imagesLocal(ctx, r, match, yield)
	}
	s, err := v.cat.State()
	if err != nil {
		return err
	}
	err = v.cat.Crawl(ctx, r, "", mode)
	return errors.Join(err, v.imagesStored(s.Index, r.Name, match, yield))
}

// imagesStored calls yield with the stored images of a remote.
func (v *browser) imagesStored(s *index.Index, remote string, match *index.Matcher, yield func(Record) bool) error {
	err := s.Images(remote, match, func(img backends.Image) bool {
		if pinned, ok := v.cat.Pinned(remote, img.Ref); ok {
			img = pinned
		}
		return yield(v.record(remote, img))
	})
	if err != nil {
		return &backends.Error{Op: "list", Remote: remote, Err: err}
	}
	return nil
}

// imagesLocal walks the files of this machine.
func (v *browser) imagesLocal(ctx context.Context, r catalog.Remote, match *index.Matcher, yield func(Record) bool) error {
	var found []backends.Image
	var errs []error
	untold := map[string]error{} // by its text: many collections may have the same cause
	pending := []string{""}
	for len(pending) > 0 {
		collection := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		for e, err := range r.Client.List(ctx, collection) {
			switch {
			case err != nil:
				if collection != "" || !errors.Is(err, fs.ErrNotExist) { // the store has not been made yet
					errs = append(errs, err)
				}
			case e.Untold != nil:
				untold[e.Untold.Error()] = e.Untold
			case e.Collection != "":
				pending = append(pending, e.Collection)
			case match.Match(r.Name, e.Image.Ref):
				found = append(found, index.Clean(e.Image))
			}
		}
	}
	slices.SortFunc(found, func(a, b backends.Image) int {
		return cmp.Or(cmp.Compare(a.Ref.Collection, b.Ref.Collection), cmp.Compare(a.Ref.Name, b.Ref.Name), cmp.Compare(a.Ref.Tag, b.Ref.Tag))
	})
	for _, img := range found {
		if !yield(v.record(r.Name, img)) {
			return nil
		}
	}
	for _, err := range untold {
		errs = append(errs, &backends.Error{Op: "list", Remote: r.Name, Err: err})
	}
	return errors.Join(errs...)
}
