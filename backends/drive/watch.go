// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
)

const maxDepth = 32 // of folders that are asked for to find out where something is

// A changed thing is a changes resource.
type changed struct {
	FileID  string `json:"fileId"`
	Removed bool   `json:"removed"`
	File    *file  `json:"file"`
}

// Watch implements backends.Watcher: it asks for changes every half a minute, for Drive has
// no request that waits for one.
// https://developers.google.com/workspace/drive/api/guides/manage-changes
func (c *client) Watch(ctx context.Context) iter.Seq2[backends.Change, error] {
	return func(yield func(backends.Change, error) bool) {
		token, err := c.latest(ctx)
		for err == nil {
			if !backends.Pause(ctx, c.poll, nil) {
				err = context.Cause(ctx)
				break
			}
			var all []backends.Change
			all, token, err = c.changes(ctx, token)
			if status := google.Status(err); status == http.StatusBadRequest || status == http.StatusGone {
				all = []backends.Change{{Below: true}} // the token is too old
				token, err = c.latest(ctx)
			}
			for _, change := range all {
				if !yield(change, nil) {
					return
				}
			}
		}
		yield(backends.Change{}, err)
	}
}

// latest returns the token that stands for now.
func (c *client) latest(ctx context.Context) (string, error) {
	query := all("fields", "kind,startPageToken")
	if c.drive != "" {
		query.Set("driveId", c.drive)
	}
	var v struct {
		Kind  string
		Token string `json:"startPageToken"`
	}
	err := c.call(ctx, http.MethodGet, "changes/startPageToken", query, nil, &v)
	if err == nil {
		err = isKind(v.Kind, "drive#startPageToken")
	}
	if err == nil && v.Token == "" {
		err = fmt.Errorf("%w: no token for changes", backends.ErrBadAnswer)
	}
	return v.Token, err
}

// changes returns what changed since token, and the token after that.
func (c *client) changes(ctx context.Context, token string) ([]backends.Change, string, error) {
	w := &watched{client: c, seen: map[backends.Change]bool{}}
	for range maxPages {
		query := all("pageToken", token, "pageSize", strconv.Itoa(pageSize), "includeItemsFromAllDrives", "true", "spaces", "drive",
			"fields", "kind,nextPageToken,newStartPageToken,changes(fileId,removed,file("+fileFields+"))")
		if c.drive != "" {
			query.Set("driveId", c.drive)
		}
		var page struct {
			Kind    string
			Next    string `json:"nextPageToken"`
			Start   string `json:"newStartPageToken"`
			Changes []changed
		}
		err := c.call(ctx, http.MethodGet, "changes", query, nil, &page)
		if err == nil {
			err = isKind(page.Kind, "drive#changeList")
		}
		if err == nil && page.Next == "" && page.Start == "" {
			err = fmt.Errorf("%w: a page of changes without what follows", backends.ErrBadAnswer)
		}
		if err != nil {
			return nil, token, err
		}
		for _, change := range page.Changes {
			if err := w.note(ctx, change); err != nil {
				return nil, token, err
			}
		}
		if page.Next == "" {
			return w.all, page.Start, nil
		}
		token = page.Next
	}
	return []backends.Change{{Below: true}}, token, nil
}

// watched are the collections that some changes are about.
type watched struct {
	*client
	all  []backends.Change
	seen map[backends.Change]bool
}

func (w *watched) add(folder string, below bool) {
	change := backends.Change{Collection: w.Collection(folder), Below: below}
	if !w.seen[change] {
		w.seen[change] = true
		w.all = append(w.all, change)
	}
}

// note adds where a changed thing was, and where it is.
func (w *watched) note(ctx context.Context, change changed) error {
	was, known := w.client.seen.Get(change.FileID)
	if known && !was.outside {
		w.touch(was)
	}
	if change.Removed || change.File == nil || change.File.Trashed {
		w.client.seen.Delete(change.FileID)
		return nil
	}
	f := *change.File
	if strings.HasPrefix(f.Name, files.Hidden) {
		return nil
	}
	_, isFolder := f.folder()
	if !isFolder && !f.hasBytes() {
		return nil
	}
	root, err := w.base(ctx)
	if lost(err) {
		return nil
	}
	if err != nil || len(f.Parents) == 0 {
		return err
	}
	at, err := w.where(ctx, root, f.Parents[0], maxDepth)
	if err != nil || at.outside {
		return err
	}
	now := place{path: files.Join(at.path, f.Name), folder: isFolder && f.Shortcut == nil}
	w.client.seen.Put(f.ID, now)
	w.touch(now)
	if isFolder && (!known || was != now) {
		w.add(now.path, true)
	}
	return nil
}

// touch adds the collections whose listings have a place in them.
func (w *watched) touch(at place) {
	folder, _ := files.Split(at.path)
	w.add(folder, false)
	if at.folder {
		w.add(at.path, true)
		return
	}
	for folder != "" { // which may be there by the names in the root only
		folder, _ = files.Split(folder)
		w.add(folder, false)
	}
}

// where returns the place of a folder, and remembers it.
func (c *client) where(ctx context.Context, root, id string, depth int) (place, error) {
	if id == root {
		return place{folder: true}, nil
	}
	if at, ok := c.seen.Get(id); ok {
		return at, nil
	}
	f, err := c.get(ctx, id)
	if err != nil && !lost(err) && !denied(err) {
		return place{}, err
	}
	at := place{outside: true}
	if err == nil && len(f.Parents) > 0 && depth > 0 {
		above, err := c.where(ctx, root, f.Parents[0], depth-1)
		if err != nil {
			return place{}, err
		}
		if !above.outside {
			at = place{path: files.Join(above.path, f.Name), folder: true}
		}
	}
	c.seen.Put(id, at)
	return at, nil
}
