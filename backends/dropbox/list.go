// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"sync"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
)

const (
	pageSize   = 2000    // the most that Dropbox gives
	maxEntries = 200_000 // of one folder
	maxPages   = 1000
	maxResets  = 3
)

// A folder is what lies directly in one collection.
type folder struct {
	collection string
	path       string // of the folder, in whatever case; of the first, if there are several
	files      []*files.FileMetadata
	folders    []string // names
}

// refs groups the files by the name that they are, what it means now first.
func (f *folder) refs() map[backends.Ref][]*files.FileMetadata {
	all := map[backends.Ref][]*files.FileMetadata{}
	for _, file := range f.files {
		if p, ok := names.Parse(file.Name); ok {
			ref := backends.Ref{Collection: f.collection, Name: p.Name, Tag: p.Tag}
			all[ref] = append(all[ref], file)
		}
	}
	for _, same := range all {
		if len(same) > 1 {
			sortFiles(same)
		}
	}
	return all
}

// folder reads a collection, which several folders can be.
// Errors: fs.ErrNotExist if none is.
func (c *client) folder(ctx context.Context, collection string) (*folder, error) {
	f := &folder{collection: collection}
	exists, missing := false, fs.ErrNotExist
	for _, path := range c.paths(collection) {
		err := c.readFolder(ctx, path, f)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if exists = exists || err == nil; err != nil {
			missing = err
		}
	}
	if !exists {
		return nil, fmt.Errorf("%w: %w", errNoCollection, missing)
	}
	return f, nil
}

var errNoCollection = errors.New("no such collection")

// readFolder adds what lies in path to f. Dropbox may say at any page that the
// listing has to begin anew.
func (c *client) readFolder(ctx context.Context, path string, f *folder) error {
	for range maxResets {
		part := &folder{}
		err := c.pages(ctx, path, part.add)
		if has(err, "reset") {
			continue
		}
		if err != nil {
			return err
		}
		f.files, f.folders = append(f.files, part.files...), append(f.folders, part.folders...)
		if f.path == "" {
			f.path = path
		}
		return nil
	}
	return fmt.Errorf("%w: the listing was reset %d times", backends.ErrUnavailable, maxResets)
}

// pages gives each entry of a listing to add.
func (c *client) pages(ctx context.Context, path string, add func(files.IsMetadata) error) error {
	arg := files.NewListFolderArg(path)
	arg.Limit = pageSize
	page, err := c.files.ListFolderContext(ctx, arg)
	seen := map[string]bool{}
	for entries := 0; err == nil; {
		if page == nil {
			return fmt.Errorf("%w: a page that is none", backends.ErrBadAnswer)
		}
		for _, entry := range page.Entries {
			if err := add(entry); err != nil {
				return err
			}
		}
		if !page.HasMore {
			if page.Cursor == "" {
				return fmt.Errorf("%w: a listing without a cursor: not an answer of Dropbox", backends.ErrBadAnswer)
			}
			return nil
		}
		entries += len(page.Entries)
		if seen[page.Cursor] || len(seen) >= maxPages || entries > maxEntries {
			return fmt.Errorf("%w: a listing without an end (%d pages, %d entries)", backends.ErrBadAnswer, len(seen)+1, entries)
		}
		seen[page.Cursor] = true
		page, err = c.files.ListFolderContinueContext(ctx, files.NewListFolderContinueArg(page.Cursor))
	}
	if err = translate(ctx, err); len(seen) > 0 {
		err = backends.BrokenOff(err)
	}
	return err
}

func (f *folder) add(entry files.IsMetadata) error {
	switch e := entry.(type) {
	case *files.FileMetadata:
		if err := checkFile(e); err != nil {
			return err
		}
		if _, ok := names.Parse(e.Name); ok && e.IsDownloadable {
			f.files = append(f.files, e)
		}
	case *files.FolderMetadata:
		if e.Name == "" {
			return fmt.Errorf("%w: a folder without a name", backends.ErrBadAnswer)
		}
		f.folders = append(f.folders, e.Name)
	}
	return nil
}

// List implements backends.Lister. Every entry has all facts.
func (c *client) List(ctx context.Context, collection string) iter.Seq2[backends.Entry, error] {
	return func(yield func(backends.Entry, error) bool) {
		f, err := c.list(ctx, collection)
		if err != nil {
			yield(backends.Entry{}, err)
			return
		}
		seen := map[string]bool{}
		for _, name := range f.folders {
			child := names.Folder(name)
			if collection != "" {
				child = collection + "/" + child
			}
			if !seen[child] && !yield(backends.Entry{Collection: child}, nil) {
				return
			}
			seen[child] = true
			c.folders.set(f.path+"/"+name, name)
		}
		for _, same := range f.refs() {
			p, _ := names.Parse(same[0].Name)
			if !yield(backends.Entry{Image: makeImage(collection, p, same[0])}, nil) {
				return
			}
		}
	}
}

func (c *client) list(ctx context.Context, collection string) (*folder, error) {
	f, err := c.folder(ctx, collection)
	if _, said := errors.AsType[*apiError](err); said && errors.Is(err, fs.ErrNotExist) && collection == "" && c.root != "" {
		return &folder{path: c.root}, nil // made when the first image is stored
	}
	if err != nil {
		return nil, err
	}
	// Dropbox finds a folder in whatever case. Here it has one name only.
	own, err := c.spell(ctx, f.path)
	if err != nil {
		return nil, backends.BrokenOff(err)
	}
	if own != collection {
		return nil, backends.NotFound("the collection is spelled %q", own)
	}
	return f, nil
}

// Spellings are the collections that folders are, by their path in lower case.
// The zero value has none.
type spellings struct {
	mu   sync.Mutex // guards the field below
	part map[string]string
}

const maxSpelled = 4096

func (s *spellings) get(path string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, ok := s.part[strings.ToLower(path)]
	return name, ok
}

func (s *spellings) set(path, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.part == nil || len(s.part) >= maxSpelled {
		s.part = map[string]string{}
	}
	s.part[strings.ToLower(path)] = name
}

// spell returns the collection that a folder is, in its own spelling. A path in
// Dropbox's answers has that only in its last part
// (https://www.dropbox.com/developers/documentation/http/documentation#files-get_metadata),
// so each folder is asked once, unless a listing of the one above told it.
func (c *client) spell(ctx context.Context, path string) (string, error) {
	if path == "" || !strings.HasPrefix(path, "/") {
		return "", nil
	}
	depth, at, collection := strings.Count(c.root, "/"), "", []string{}
	for i, part := range strings.Split(path[1:], "/") {
		at += "/" + part
		if i < depth {
			continue
		}
		name, known := c.folders.get(at)
		if !known {
			entry, err := c.files.GetMetadataContext(ctx, files.NewGetMetadataArg(at))
			if err != nil {
				return "", translate(ctx, err)
			}
			f, ok := entry.(*files.FolderMetadata)
			if !ok || f.Name == "" {
				return "", backends.NotFound("%.80q is no folder", at)
			}
			name = f.Name
			c.folders.set(at, name)
		}
		collection = append(collection, names.Folder(name))
	}
	return strings.Join(collection, "/"), nil
}

// known is spell for when it need not be exact, without a request.
func (c *client) known(path string) string {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	at := ""
	for i, part := range parts {
		at += "/" + part
		if name, ok := c.folders.get(at); ok {
			parts[i] = name
		}
	}
	return c.collectionOf(strings.Join(parts, "/"))
}
