// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"path/filepath"
	"time"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// The requests of the verbs. File names in them are absolute: the two sides
// need not have the same working directory.
type (
	imagesRequest struct {
		verbs.ImagesOptions
		Brief bool `json:"brief,omitempty"` // the fields of briefRecord are enough
	}
	uriRequest struct {
		URI string `json:"uri"`
	}
	reloadRequest struct {
		Reopen string `json:"reopen,omitempty"`
	}
	idRequest struct {
		ID string `json:"id"`
	}
	noneRequest  struct{}
	shareRequest struct {
		URI  string `json:"uri"`
		With string `json:"with,omitempty"`
	}
	removeRequest struct {
		URI   string `json:"uri"`
		Means string `json:"means,omitempty"`
	}
	pullRequest struct {
		URI string `json:"uri"`
		verbs.PullOptions
	}
	verifyRequest struct {
		URI string `json:"uri"`
		inspect.Keys
	}
	warmRequest struct {
		URI string `json:"uri"`
		verbs.WarmOptions
	}
	copyRequest struct {
		From string `json:"from"`
		To   string `json:"to"`
		verbs.CopyOptions
	}
	compareRequest struct {
		From string `json:"from"`
		To   string `json:"to"`
		verbs.CompareOptions
	}
	patternsRequest struct {
		Patterns []string `json:"patterns"`
	}
	recordRequest struct {
		Location string `json:"location"` // a URL or an absolute path; "" for what uri names
		URI      string `json:"uri"`
		Force    bool   `json:"force,omitempty"`
	}
	renameRequest struct {
		URI   string `json:"uri"`
		To    string `json:"to"`
		Force bool   `json:"force,omitempty"`
	}
	importRequest struct {
		Dry bool `json:"dry,omitempty"`
	}
	keyRequest struct {
		Key cache.Key `json:"key"`
	}
	fileRequest struct {
		Path string `json:"path"`
		URI  string `json:"uri"`
		verbs.AddOptions
	}
)

func allVerbs(v *verbs.Verbs, opts Options) map[string]verb {
	all := factVerbs(v, opts)
	maps.Copy(all, byteVerbs(v, opts))
	maps.Copy(all, cacheVerbs(v))
	maps.Copy(all, versionVerbs(v, opts))
	maps.Copy(all, recordVerbs(v, opts))
	return all
}

// factVerbs are those that move no bytes of an image.
func factVerbs(v *verbs.Verbs, opts Options) map[string]verb {
	return map[string]verb{
		"images": verbOf(func(ctx context.Context, r imagesRequest, out *frameWriter) error {
			all := v.Images(ctx, r.ImagesOptions)
			if r.Refresh {
				defer opts.settle(ctx)
			}
			if r.Brief {
				return sendAll(out, brief(all))
			}
			return sendAll(out, all)
		}),
		"search": verbOf(func(ctx context.Context, r verbs.SearchOptions, out *frameWriter) error {
			return sendAll(out, v.Search(ctx, r))
		}),
		"entries": verbOf(func(ctx context.Context, r verbs.EntriesOptions, out *frameWriter) error {
			return sendAll(out, v.Entries(ctx, r))
		}),
		"labels": verbOf(func(ctx context.Context, r verbs.LabelsOptions, out *frameWriter) error {
			return sendAll(out, v.Labels(ctx, r))
		}),
		"choose": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			return sendAll(out, v.Choose(ctx, r.URI))
		}),
		"get": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Get(ctx, r.URI))
		}),
		"find": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Find(ctx, r.URI))
		}),
		"inspect": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			in, err := v.Inspect(ctx, r.URI)
			if err != nil {
				return err
			}
			return out.item(in)
		}),
		"share": verbOf(func(ctx context.Context, r shareRequest, out *frameWriter) error {
			return sendOne[verbs.Shared](out)(v.Share(ctx, r.URI, r.With))
		}),
		"pin": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Pin(ctx, r.URI))
		}),
		"reload": opts.changing(verbOf(func(ctx context.Context, r reloadRequest, out *frameWriter) error {
			if opts.Reload == nil {
				return fmt.Errorf("%w: no mount is running", errors.ErrUnsupported)
			}
			return sendOne[Reloaded](out)(opts.Reload(ctx, r.Reopen))
		})),
		"unpin": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Unpin(ctx, r.URI))
		}),
		"status": verbOf(func(ctx context.Context, _ noneRequest, out *frameWriter) error {
			return sendStatus(ctx, v, opts, out)
		}),
	}
}

// byteVerbs are those that do.
func byteVerbs(v *verbs.Verbs, opts Options) map[string]verb {
	return map[string]verb{
		"pull": verbOf(func(ctx context.Context, r pullRequest, out *frameWriter) error {
			if err := checkPath(r.To, true); err != nil {
				return err
			}
			return sendOne[verbs.Record](out)(v.Pull(ctx, r.URI, r.PullOptions, out.progress))
		}),
		"verify": verbOf(func(ctx context.Context, r verifyRequest, out *frameWriter) error {
			return sendOne[verbs.Inspection](out)(v.Verify(ctx, r.URI, r.Keys, out.progress))
		}),
		"warm": verbOf(func(ctx context.Context, r warmRequest, out *frameWriter) error {
			if err := checkPath(r.To, true); err != nil {
				return err
			}
			return sendOne[verbs.Warmed](out)(v.Warm(ctx, r.URI, r.WarmOptions, out.progress))
		}),
		"push": opts.changing(verbOf(func(ctx context.Context, r fileRequest, out *frameWriter) error {
			if err := checkPath(r.Path, false); err != nil {
				return err
			}
			return sendOne[verbs.Record](out)(v.Push(ctx, r.Path, r.URI, r.PushOptions, out.progress))
		})),
		"add": opts.changing(verbOf(func(ctx context.Context, r fileRequest, out *frameWriter) error {
			if err := checkPath(r.Path, false); err != nil {
				return err
			}
			return sendOne[verbs.Record](out)(v.Add(ctx, r.Path, r.URI, r.AddOptions, out.progress))
		})),
		"compare": verbOf(func(ctx context.Context, r compareRequest, out *frameWriter) error {
			return sendAll(out, v.Compare(ctx, r.From, r.To, r.CompareOptions))
		}),
		"copy": opts.changing(verbOf(func(ctx context.Context, r copyRequest, out *frameWriter) error {
			return sendOne[verbs.Copied](out)(v.Copy(ctx, r.From, r.To, r.CopyOptions, out.progress))
		})),
		"removable": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Removable(ctx, r.URI))
		}),
		"remove": opts.changing(verbOf(func(ctx context.Context, r removeRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Remove(ctx, r.URI, r.Means))
		})),
		"retry": opts.changing(verbOf(func(ctx context.Context, r idRequest, out *frameWriter) error {
			return v.Uploads().Retry(ctx, r.ID, out.progress)
		})),
		"discard": opts.changing(verbOf(func(ctx context.Context, r idRequest, _ *frameWriter) error {
			return v.Uploads().Discard(ctx, r.ID)
		})),
	}
}

// recordVerbs are those that change where an image is, or what it is called.
func recordVerbs(v *verbs.Verbs, opts Options) map[string]verb {
	return map[string]verb{
		"record": opts.changing(verbOf(func(ctx context.Context, r recordRequest, out *frameWriter) error {
			if r.Location == "" {
				return sendOne[verbs.Record](out)(v.Note(ctx, r.URI))
			}
			return sendOne[verbs.Record](out)(v.Record(ctx, r.Location, r.URI, r.Force))
		})),
		"move-out": opts.changing(verbOf(func(ctx context.Context, r renameRequest, out *frameWriter) error {
			if err := checkPath(r.To, false); err != nil {
				return err
			}
			return sendOne[verbs.Record](out)(v.MoveOut(ctx, r.URI, r.To))
		})),
		"rename": opts.changing(verbOf(func(ctx context.Context, r renameRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.Rename(ctx, r.URI, r.To, r.Force))
		})),
		"remove-file": opts.changing(verbOf(func(ctx context.Context, r removeRequest, out *frameWriter) error {
			return sendOne[verbs.Record](out)(v.RemoveFile(ctx, r.URI, r.Means))
		})),
		"import-client": opts.changing(verbOf(func(ctx context.Context, r importRequest, out *frameWriter) error {
			return sendAll(out, v.ImportClient(ctx, r.Dry))
		})),
	}
}

// cacheVerbs are those about the cache.
func cacheVerbs(v *verbs.Verbs) map[string]verb {
	return map[string]verb{
		"cached": verbOf(func(ctx context.Context, r patternsRequest, out *frameWriter) error {
			return sendAll(out, v.Cached(ctx, r.Patterns))
		}),
		"cache-use": verbOf(func(ctx context.Context, _ noneRequest, out *frameWriter) error {
			return sendOne[verbs.CacheUse](out)(v.CacheUse(ctx))
		}),
		"cache-remove": verbOf(func(ctx context.Context, r keyRequest, out *frameWriter) error {
			return sendOne[int64](out)(v.RemoveCached(ctx, r.Key))
		}),
		"cache-verify": verbOf(func(ctx context.Context, r keyRequest, out *frameWriter) error {
			return v.VerifyCached(ctx, r.Key, out.progress)
		}),
	}
}

// A briefRecord is what a person sees of a verbs.Record in a list: of 100,000
// images the rest would take longer to send than all else.
type briefRecord struct {
	URI      string      `json:"uri"`
	Size     int64       `json:"size"`
	Modified time.Time   `json:"modified,omitzero"`
	State    cache.State `json:"state"`
	Pinned   bool        `json:"pinned,omitempty"`
	Runs     []string    `json:"runs,omitempty"`
}

func brief(all iter.Seq2[verbs.Record, error]) iter.Seq2[*briefRecord, error] {
	return func(yield func(*briefRecord, error) bool) {
		for r, err := range all {
			if !yield(&briefRecord{r.URI, r.Size, r.Modified, r.State, r.Pinned, r.Runs}, err) {
				return
			}
		}
	}
}

func sendAll[Item any](out *frameWriter, items iter.Seq2[Item, error]) error {
	for r, err := range items {
		if err != nil {
			return err
		}
		if err := out.item(r); err != nil {
			return err
		}
	}
	return nil
}

// sendOne returns a function that takes the two results of a verb.
func sendOne[Item any](out *frameWriter) func(Item, error) error {
	return func(r Item, err error) error {
		if err != nil {
			return err
		}
		return out.item(r)
	}
}

func sendStatus(ctx context.Context, v *verbs.Verbs, opts Options, out *frameWriter) error {
	st, err := v.Status(ctx)
	if err != nil {
		return err
	}
	st.Mount = opts.Mount
	if opts.Details != nil {
		st.Details = opts.Details()
	}
	if opts.Refusals != nil {
		st.Refusals = opts.Refusals()
	}
	return out.item(st)
}

func checkPath(path string, optional bool) error {
	if optional && path == "" || filepath.IsAbs(path) {
		return nil
	}
	return fmt.Errorf("%w: file name %q is not absolute", fs.ErrInvalid, path)
}
