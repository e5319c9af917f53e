// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// A Change is one thing in which the second of two images is not the first one.
type Change struct {
	Change  string        `json:"change"` // "added", "removed", "changed", or "unknown" for what could not be compared
	What    string        `json:"what"`   // "file", "digest", "size", or the field of inspect.Facts: "labels" …
	Name    string        `json:"name,omitempty"`
	Old     string        `json:"old,omitempty"` // as text; of what could not be compared, the reason
	New     string        `json:"new,omitempty"`
	OldFile *inspect.File `json:"old_file,omitempty"`
	NewFile *inspect.File `json:"new_file,omitempty"`
}

// DiffOptions say what Diff compares.
type DiffOptions struct {
	NoFiles bool `json:"no_files,omitempty"` // not the files: what the images say of themselves
}

// Diff yields in what the second image is not the first: first what the registries and the
// images say of themselves, then the files, in the order of their paths. Of files their
// tables are compared, as rsync does: a file of the same type, permissions, owner, size and time
// counts as the same. Tables are read by range; those of a container image that is not
// here take its layers, unless both images have the same ones. Nothing is read of two images
// with one digest.
//
// Errors: those of Inspect, for either.
func (v *reader) Diff(ctx context.Context, from, to string, o DiffOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		a, err := v.side(ctx, from)
		if err != nil {
			yield(Change{}, err)
			return
		}
		b, err := v.side(ctx, to)
		if err != nil {
			yield(Change{}, err)
			return
		}
		if a.img.Digest != "" && a.img.Digest == b.img.Digest {
			return
		}
		if err := errors.Join(v.readSide(ctx, a), v.readSide(ctx, b)); err != nil {
			yield(Change{}, err)
			return
		}
		for _, c := range sayings(a, b) {
			if !yield(c, nil) {
				return
			}
		}
		if !o.NoFiles && !sameLayers(a.facts, b.facts) {
			v.diffFiles(ctx, a, b, yield)
		}
	}
}

// A side is one of two images that are compared.
type side struct {
	uri    string
	remote catalog.Remote
	img    backends.Image
	facts  *inspect.Facts
	size   int64
}

func (v *reader) side(ctx context.Context, uri string) (*side, error) {
	r, img, err := v.find(ctx, uri)
	return &side{uri: uri, remote: r, img: img}, err
}

func (v *reader) readSide(ctx context.Context, s *side) (err error) {
	if s.facts, s.size, err = v.facts(ctx, s.remote, s.img); err != nil {
		return fmt.Errorf("inspect %s: %w", s.uri, err)
	}
	return nil
}

func sameLayers(a, b *inspect.Facts) bool {
	return len(a.Layers) > 0 && slices.EqualFunc(a.Layers, b.Layers, func(a, b inspect.Layer) bool { return a.Digest == b.Digest })
}

// sayings compares what is said of two images, and what they say.
func sayings(a, b *side) []Change {
	one, two := said(a), said(b)
	var all []Change
	for _, what := range slices.Sorted(maps.Keys(merged(one, two))) {
		for _, name := range slices.Sorted(maps.Keys(merged(one[what], two[what]))) {
			before, had := one[what][name]
			now, has := two[what][name]
			if before == now && had == has {
				continue
			}
			all = append(all, Change{Change: kindOf(had, has), What: what, Name: name, Old: before, New: now})
		}
	}
	return all
}

func kindOf(had, has bool) string {
	switch {
	case !had:
		return "added"
	case !has:
		return "removed"
	}
	return "changed"
}

// merged has the keys of both.
func merged[K comparable, V any](a, b map[K]V) map[K]V {
	all := make(map[K]V, len(a)+len(b))
	maps.Copy(all, a)
	maps.Copy(all, b)
	return all
}

// unsaid are the fields of inspect.Facts that are another in any two images, or say nothing.
var unsaid = []string{"id", "descriptors", "notes", "launch", "history"}

// said returns what is said of an image: by field, and by name within it.
func said(s *side) map[string]map[string]string {
	all := map[string]map[string]string{"size": {"": strconv.FormatInt(s.size, 10)}}
	if s.img.Digest != "" {
		all["digest"] = map[string]string{"": s.img.Digest}
	}
	text, err := json.Marshal(s.facts)
	var fields map[string]any
	if err != nil || json.Unmarshal(text, &fields) != nil {
		return all // cannot be: they are made of text and numbers
	}
	for what, value := range fields {
		if slices.Contains(unsaid, what) {
			continue
		}
		all[what] = map[string]string{}
		switch value := value.(type) {
		case map[string]any:
			for name, v := range value {
				all[what][name] = sayingText(v)
			}
		case []any:
			for _, v := range value {
				all[what][itemName(v)] = sayingText(v)
			}
		default:
			all[what][""] = sayingText(value)
		}
	}
	return all
}

// itemName is what one of several layers or signatures is called.
func itemName(v any) string {
	fields, _ := v.(map[string]any)
	for _, name := range []string{"digest", "fingerprint"} {
		if text, ok := fields[name].(string); ok {
			return text
		}
	}
	return sayingText(v)
}

func sayingText(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	text, _ := json.Marshal(v) // it was read from JSON
	return string(text)
}

// diffFiles compares two tables of files side by side: both are sorted.
func (v *reader) diffFiles(ctx context.Context, a, b *side, yield func(Change, error) bool) {
	next, stop := iter.Pull2(v.files(ctx, a))
	defer stop()
	nextB, stopB := iter.Pull2(v.files(ctx, b))
	defer stopB()
	one, errA, moreA := next()
	two, errB, moreB := nextB()
	for moreA || moreB {
		if err := cmp.Or(errA, errB); err != nil {
			if errors.Is(err, inspect.ErrNoTable) {
				yield(Change{Change: "unknown", What: "files", Old: err.Error()}, nil)
				return
			}
			yield(Change{}, err)
			return
		}
		order := 0
		switch {
		case !moreB:
			order = -1
		case !moreA:
			order = 1
		default:
			order = inspect.ComparePaths(one.Path, two.Path)
		}
		if c, differ := fileChange(order, one, two); differ && !yield(c, nil) {
			return
		}
		if order <= 0 {
			one, errA, moreA = next()
		}
		if order >= 0 {
			two, errB, moreB = nextB()
		}
	}
}

// fileChange compares the next files of both tables; order says which comes first.
func fileChange(order int, a, b inspect.File) (Change, bool) {
	switch {
	case order < 0:
		return Change{Change: "removed", What: "file", Name: a.Path, Old: fileText(a), OldFile: &a}, true
	case order > 0:
		return Change{Change: "added", What: "file", Name: b.Path, New: fileText(b), NewFile: &b}, true
	}
	if a.Type != "file" {
		a.Modified = b.Modified // that of a directory says that something in it has changed
	}
	if a == b {
		return Change{}, false
	}
	return Change{Change: "changed", What: "file", Name: a.Path, Old: fileText(a), New: fileText(b), OldFile: &a, NewFile: &b}, true
}

// fileText is a file in one line.
func fileText(f inspect.File) string {
	text := fmt.Sprintf("%s %04o %d:%d", f.Type, f.Mode, f.UID, f.GID)
	switch f.Type {
	case "file":
		text += fmt.Sprintf(" %d %s", f.Size, f.Modified.Format("2006-01-02T15:04:05Z"))
	case "link":
		text = "link -> " + f.Target
	case "block", "char":
		text += fmt.Sprintf(" %d", f.Device)
	}
	return text
}

// files yields the files of an image. Those of a container image are known once its layers
// were here.
func (v *reader) files(ctx context.Context, s *side) iter.Seq2[inspect.File, error] {
	return func(yield func(inspect.File, error) bool) {
		content, err := v.peekFiles(ctx, s)
		if err != nil {
			yield(inspect.File{}, fmt.Errorf("files of %s: %w", s.uri, err))
			return
		}
		defer content.Close()
		for f, err := range inspect.Files(ctx, content.r, content.size) {
			if err != nil {
				err = fmt.Errorf("files of %s: %w", s.uri, err)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

func (v *reader) peekFiles(ctx context.Context, s *side) (peek, error) {
	if !vsif.IsDigest(s.img.Digest) || v.cat.BlobInfo(s.remote.Name, s.img).State == cache.Cached {
		return v.peek(ctx, s.remote, s.img)
	}
	b, err := v.cat.Blob(ctx, s.remote.Name, s.img)
	if err != nil {
		return peek{}, err
	}
	return peek{b, b, b.Size()}, nil
}
