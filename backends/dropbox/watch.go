// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/files"

	"github.com/sregfs/sregfs/backends"
)

// pollSeconds is how long one question for changes may stay open. Dropbox adds
// up to 90 seconds, and a request is given up after 300.
const pollSeconds = 180

// rootInterval is how often the root folder is looked for while there is none.
const rootInterval = time.Minute

// Watch implements backends.Watcher by long polling.
// https://www.dropbox.com/developers/reference/detecting-changes
func (c *client) Watch(ctx context.Context) iter.Seq2[backends.Change, error] {
	return func(yield func(backends.Change, error) bool) {
		cursor, err := c.latest(ctx)
		for err == nil {
			var changes bool
			if changes, err = c.poll(ctx, cursor); err != nil || !changes {
				continue
			}
			var all []backends.Change
			all, cursor, err = c.changes(ctx, cursor)
			if has(err, "reset") {
				all = []backends.Change{{Below: true}}
				cursor, err = c.latest(ctx)
			}
			for _, change := range all {
				if !yield(change, nil) {
					return
				}
			}
		}
		if has(err, "reset") {
			// The cursor is too old to ask with: whoever watches again gets a new one.
			err = fmt.Errorf("%w: the change log was reset", backends.ErrUnavailable)
		}
		yield(backends.Change{}, err)
	}
}

// latest returns a cursor that stands for now.
func (c *client) latest(ctx context.Context) (string, error) {
	arg := files.NewListFolderArg(c.root)
	arg.Recursive = true
	for {
		res, err := c.files.ListFolderGetLatestCursorContext(ctx, arg)
		err = translate(ctx, err)
		switch {
		case err == nil && (res == nil || res.Cursor == ""):
			return "", fmt.Errorf("%w: an empty cursor", backends.ErrBadAnswer)
		case err == nil:
			return res.Cursor, nil
		case c.root == "" || !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		// Nothing was stored yet.
		if !backends.Pause(ctx, rootInterval, nil) {
			return "", context.Cause(ctx)
		}
	}
}

// poll waits until there may be changes since cursor, and then for as long as
// the service asks to.
func (c *client) poll(ctx context.Context, cursor string) (bool, error) {
	arg := files.NewListFolderLongpollArg(cursor)
	arg.Timeout = pollSeconds
	began := time.Now()
	res, err := c.files.ListFolderLongpollContext(ctx, arg)
	if err != nil {
		return false, translate(ctx, err)
	}
	if res == nil {
		return false, fmt.Errorf("%w: an answer that is none", backends.ErrBadAnswer)
	}
	wait := time.Duration(min(res.Backoff, 3600)) * time.Second
	if !res.Changes && time.Since(began) < time.Second {
		wait = max(wait, time.Second) // a service that does not wait must not keep us busy
	}
	if wait > 0 && !backends.Pause(ctx, wait, nil) {
		return res.Changes, context.Cause(ctx)
	}
	return res.Changes, nil
}

// changes returns what changed since cursor, and the cursor after that.
func (c *client) changes(ctx context.Context, cursor string) ([]backends.Change, string, error) {
	var all []backends.Change
	seen := map[backends.Change]bool{}
	add := func(change backends.Change) {
		if !seen[change] {
			seen[change] = true
			all = append(all, change)
		}
	}
	for range maxPages {
		page, err := c.files.ListFolderContinueContext(ctx, files.NewListFolderContinueArg(cursor))
		if err != nil {
			return nil, cursor, translate(ctx, err)
		}
		if page == nil || page.Cursor == "" {
			return nil, cursor, fmt.Errorf("%w: a page that is none", backends.ErrBadAnswer)
		}
		for _, entry := range page.Entries {
			c.change(entry, add)
		}
		if cursor = page.Cursor; !page.HasMore {
			return all, cursor, nil
		}
	}
	return []backends.Change{{Below: true}}, cursor, nil
}

// change says which collections one entry of the change log is about.
func (c *client) change(entry files.IsMetadata, add func(backends.Change)) {
	switch e := entry.(type) {
	case *files.FileMetadata:
		if _, ok := names.Parse(e.Name); ok {
			add(backends.Change{Collection: c.known(parent(e.PathDisplay))})
		}
	case *files.FolderMetadata:
		add(backends.Change{Collection: c.known(parent(e.PathDisplay))})
		add(backends.Change{Collection: c.known(e.PathDisplay)})
	case *files.DeletedMetadata:
		add(backends.Change{Collection: c.known(parent(e.PathDisplay))})
		if _, ok := names.Parse(e.Name); !ok {
			add(backends.Change{Collection: c.known(e.PathDisplay), Below: true})
		}
	}
}
