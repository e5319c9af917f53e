// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir/clientdb"
	"github.com/sregfs/sregfs/backends/disk"
)

// A record tells of an image what the files of the store do not say: where its file is, if
// that was moved elsewhere, or the URL that it can be read from, and what is known besides.
type record struct {
	Tag     string            `json:"tag"`
	Version string            `json:"version,omitempty"` // in the words of the sregistry client
	Path    string            `json:"path,omitempty"`    // absolute
	URL     string            `json:"url,omitempty"`
	Client  string            `json:"client,omitempty"` // the kind of service that it is from
	Created time.Time         `json:"created,omitzero"`
	Labels  map[string]string `json:"labels,omitempty"`
	Metrics json.RawMessage   `json:"metrics,omitempty"` // all that the client kept of the image; the labels are from it
	// Removed, if set, makes it a note that what the database said of the tag until then
	// does not hold any more. There is nothing else but the tag then, and the version if
	// only that was removed.
	Removed time.Time `json:"removed,omitzero"`

	row int64 // of the database; 0 for one of our own
}

// records are our own, below <root>/.sregfs/records, and those in the database of the
// sregistry client. Ours come first. They never fail: what cannot be read is logged, once,
// and not known, and listings say that they are not whole.
//
//	<root>/.sregfs/records/<collection…>/.images/<image>.json    all records of one image
type records struct {
	dir   string
	db    *clientdb.DB // nil: there is none to look at
	write bool         // the database is kept up to date
	log   *slog.Logger
	told  sync.Map              // messages that were logged
	lost  atomic.Pointer[error] // what was lost, of a damaged database say; nil if nothing was
}

const (
	recordsDir = "records"
	imagesDir  = ".images" // no collection: a leading dot is escaped
	maxRecords = 16 << 20  // bytes of one file
)

func (r *records) warn(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	r.lost.Store(&err)
	if _, again := r.told.LoadOrStore(err.Error(), true); !again {
		r.log.Warn("not all of the local catalogue is known", "err", err)
	}
}

func (r *records) folder(collection string) string {
	return filepath.Join(r.dir, filepath.FromSlash(backends.EscapePath(collection)))
}

func (r *records) file(collection, name string) string {
	return filepath.Join(r.folder(collection), imagesDir, backends.EscapePart(name)+".json")
}

// own returns our records of one image.
func (r *records) own(path string) ([]record, error) {
	text, err := backends.ReadRegular(path, backends.NoFollow, maxRecords)
	if errors.Is(err, fs.ErrNotExist) || isMissing(err) {
		return nil, nil
	}
	var all []record
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, localError(err))
	}
	return all, nil
}

// save replaces our records of one image, for good.
func (r *records) save(collection, name string, all []record) error {
	path := r.file(collection, name)
	if len(all) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return backends.DiskError("remove "+path, err)
		}
		for dir := filepath.Dir(path); dir != r.dir && os.Remove(dir) == nil; dir = filepath.Dir(dir) { //nolint:revive // upwards while they are empty
		}
		return nil
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o777)
	}
	if err == nil {
		err = disk.Replace(path, append(text, '\n'), disk.Replacement{Perm: 0o666})
	}
	if err != nil {
		return backends.DiskError("write "+path, err)
	}
	return nil
}

// image returns the records of one image, those that count first.
func (r *records) image(ctx context.Context, collection, name string) []record {
	own, err := r.own(r.file(collection, name))
	r.warn(err)
	return r.with(ctx, own, collection, name)
}

// with adds what the database says to our own records of an image.
func (r *records) with(ctx context.Context, own []record, collection, name string) []record {
	if r.db == nil {
		return merge(own, nil)
	}
	rows, err := r.db.Image(ctx, collection, name)
	r.warn(err)
	return merge(own, rows)
}

// collection returns the records of all images of a collection, by their names.
func (r *records) collection(ctx context.Context, collection string) map[string][]record {
	all := map[string][]record{}
	entries, err := os.ReadDir(filepath.Join(r.folder(collection), imagesDir))
	if err != nil && !isMissing(err) {
		r.warn(localError(err))
	}
	for _, e := range entries {
		if stem, ok := strings.CutSuffix(e.Name(), ".json"); ok && maybeFile(e) {
			own, err := r.own(filepath.Join(r.folder(collection), imagesDir, e.Name()))
			r.warn(err)
			all[decode(stem)] = own
		}
	}
	rows := map[string][]clientdb.Row{}
	for row := range r.rows(ctx, collection) {
		rows[row.Name] = append(rows[row.Name], row)
	}
	for name, found := range rows {
		slices.Reverse(found) // the newest first
		all[name] = merge(all[name], found)
	}
	for name, own := range all {
		if _, merged := rows[name]; !merged {
			all[name] = merge(own, nil)
		}
	}
	return all
}

// rows yields those of a collection, the oldest first.
func (r *records) rows(ctx context.Context, collection string) func(func(clientdb.Row) bool) {
	return func(yield func(clientdb.Row) bool) {
		if r.db == nil {
			return
		}
		for row, err := range r.db.Collection(ctx, collection) {
			if err != nil {
				r.warn(err)
				return
			}
			if !yield(row) {
				return
			}
		}
	}
}

// below returns the collections below one that have records, whatever these are worth.
func (r *records) below(ctx context.Context, collection string) []string {
	var all []string
	top := r.folder(collection)
	_ = filepath.WalkDir(top, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() || e.Name() != imagesDir {
			return nil //nolint:nilerr // what is not there has no records
		}
		if rel, err := filepath.Rel(r.dir, filepath.Dir(path)); err == nil && rel != "." {
			if name, err := backends.UnescapePath(filepath.ToSlash(rel)); err == nil && name != collection {
				all = append(all, name)
			}
		}
		return fs.SkipDir
	})
	if r.db != nil {
		names, err := r.db.Collections(ctx)
		r.warn(err)
		for _, name := range names {
			if collection == "" || strings.HasPrefix(name, collection+"/") {
				all = append(all, name)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// merge joins our own records of one image with the rows of the database, which are in the
// order in which they count.
func merge(own []record, rows []clientdb.Row) []record {
	var all []record
	var notes []record
	for _, rec := range own {
		if rec.Removed.IsZero() {
			all = append(all, rec)
		} else {
			notes = append(notes, rec)
		}
	}
	for _, row := range rows {
		rec := fromRow(row)
		// The time in the database has no fractions of a second.
		hides := func(note record) bool {
			return note.Tag == rec.Tag && (note.Version == "" || note.Version == rec.Version) && !rec.Created.After(note.Removed)
		}
		if slices.ContainsFunc(notes, hides) || slices.ContainsFunc(all, rec.isIn) {
			continue
		}
		all = append(all, rec)
	}
	return all
}

// isIn reports whether o tells all that r does.
func (r record) isIn(o record) bool {
	return r.Tag == o.Tag && r.Version == o.Version && (r.Path == o.Path || r.Path == "" && r.URL == o.URL)
}

// fromRow makes a record of a row.
func fromRow(row clientdb.Row) record {
	rec := record{
		Tag: row.Tag, Version: row.Version, Client: row.Client, Created: row.Created,
		Labels: labelsOf(row.Metrics), row: row.ID,
	}
	if json.Valid([]byte(row.Metrics)) {
		rec.Metrics = json.RawMessage(row.Metrics)
	}
	if filepath.IsAbs(row.Image) {
		rec.Path = filepath.Clean(row.Image)
	}
	if isURL(row.URL) { // of what was added from a file it has the name there
		rec.URL = row.URL
	}
	return rec
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

// ownKeys are what the client says in the metrics of an image of its name.
var ownKeys = []string{"collection", "original", "registry", "image", "url", "tag", "version", "storage", "storage_uri", "storage_version", "tag_uri", "uri", "type", "data", "attributes"}

// labelsOf returns the labels in what the client kept of an image. Newer versions mix them
// with what the name says; older ones keep the answer of Singularity.
func labelsOf(metrics string) map[string]string {
	var top map[string]any
	if json.Unmarshal([]byte(metrics), &top) != nil {
		return nil
	}
	labels := map[string]string{}
	add := func(from map[string]any, besides []string) {
		for key, value := range from {
			switch value.(type) {
			case string, float64, bool:
				if !slices.Contains(besides, key) {
					labels[key] = fmt.Sprint(value)
				}
			}
		}
	}
	add(top, ownKeys)
	for _, in := range []any{top["attributes"], table(top["data"])["attributes"]} {
		switch inside := table(in)["labels"].(type) {
		case map[string]any:
			add(inside, nil)
		case string: // JSON in JSON
			var parsed map[string]any
			if json.Unmarshal([]byte(inside), &parsed) == nil {
				add(parsed, nil)
			}
		}
	}
	if len(labels) == 0 {
		return nil
	}
	return labels
}

func table(v any) map[string]any {
	t, _ := v.(map[string]any)
	return t
}

// The labels that tell what else a record knows.
const (
	labelClient  = "sregistry.client"
	labelCreated = "sregistry.created"
	labelVersion = "sregistry.version"
	labelURL     = "sregistry.url"
)

// told returns what a record says of its image, as labels.
func (r record) told() map[string]string {
	all := maps.Clone(r.Labels)
	if all == nil {
		all = map[string]string{}
	}
	for key, value := range map[string]string{labelClient: r.Client, labelVersion: r.Version, labelURL: r.URL} {
		if value != "" {
			all[key] = value
		}
	}
	if !r.Created.IsZero() {
		all[labelCreated] = r.Created.UTC().Format(time.RFC3339)
	}
	if len(all) == 0 {
		return nil
	}
	return all
}

// labelled adds to an image in a file what the records of its name know of it.
func labelled(img backends.Image, path string, known []record) backends.Image {
	for _, rec := range known {
		if rec.Path == path {
			img.Labels = rec.told()
			break
		}
	}
	return img
}
