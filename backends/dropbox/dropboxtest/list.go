// SPDX-License-Identifier: Apache-2.0

package dropboxtest

import (
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
)

// A cursor is a place in a listing, or in the change log after it. It never
// changes.
type cursor struct {
	path      string // lower case; "" is the root
	recursive bool
	pending   []*node // of the listing
	limit     int
	at        int // place in the change log
	query     string
}

type listArg struct {
	Path                   string
	Recursive              bool
	IncludeMediaInfo       bool `json:"include_media_info"`
	IncludeDeleted         bool `json:"include_deleted"`
	IncludeExplicitMembers bool `json:"include_has_explicit_shared_members"`
	IncludeMountedFolders  bool `json:"include_mounted_folders"`
	Limit                  *int `json:"limit"`
	SharedLink             any  `json:"shared_link"`
	IncludePropertyGroups  any  `json:"include_property_groups"`
	IncludeNonDownloadable bool `json:"include_non_downloadable_files"`
	IncludeRestorableInfo  bool `json:"include_restorable_info"`
}

// ResetCursors makes all cursors useless, as Dropbox may at any time.
func (s *Server) ResetCursors() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.cursors)
}

// newCursor checks the argument and stands at the beginning of the listing.
// s.mu is held.
func (c *call) newCursor() (cursor, *failure) {
	var arg listArg
	if fail := c.decode(&arg); fail != nil {
		return cursor{}, fail
	}
	limit := c.opts.PageSize
	if arg.Limit != nil {
		if *arg.Limit < 1 || *arg.Limit > 2000 {
			return cursor{}, bad("limit %d", *arg.Limit)
		}
		limit = min(limit, *arg.Limit)
	}
	if arg.Path == "/" {
		return cursor{}, bad("the root is \"\", not \"/\"")
	}
	cur := cursor{recursive: arg.Recursive, limit: limit, at: len(c.log)}
	if arg.Path != "" {
		n, fail := c.lookup(arg.Path)
		if fail != nil {
			return cursor{}, fail
		}
		if !n.folder {
			return cursor{}, refuse("path/not_folder")
		}
		cur.path = lower(n.path)
	}
	for _, p := range slices.Sorted(maps.Keys(c.nodes)) {
		if cur.covers(p) {
			cur.pending = append(cur.pending, c.nodes[p])
		}
	}
	return cur, nil
}

// covers reports whether the cursor tells of a lower-case path.
func (c cursor) covers(p string) bool {
	below, ok := strings.CutPrefix(p, c.path+"/")
	return ok && (c.recursive || !strings.Contains(below, "/"))
}

// keep returns the name of a cursor. s.mu is held.
func (s *Server) keep(c cursor) string {
	name := fmt.Sprintf("AAG%d", s.next())
	s.cursors[name] = c
	return name
}

// page returns the next entries. s.mu is held.
func (s *Server) page(c cursor) map[string]any {
	entries := []any{}
	if len(c.pending) > 0 {
		n := min(c.limit, len(c.pending))
		for _, node := range c.pending[:n] {
			entries = append(entries, s.metadata(node, true))
		}
		c.pending = c.pending[n:]
		return map[string]any{"entries": entries, "has_more": len(c.pending) > 0, "cursor": s.keep(c)}
	}
	for ; c.at < len(s.log) && len(entries) < c.limit; c.at++ {
		p := s.log[c.at]
		if !c.covers(p) {
			continue
		}
		if n := s.nodes[p]; n != nil {
			entries = append(entries, s.metadata(n, true))
		} else {
			entries = append(entries, map[string]any{".tag": "deleted", "name": path.Base(p), "path_lower": p, "path_display": p})
		}
	}
	return map[string]any{"entries": entries, "has_more": c.at < len(s.log), "cursor": s.keep(c)}
}

func (c *call) listFolder() (any, *failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cur, fail := c.newCursor()
	if fail != nil {
		return nil, fail
	}
	if len(cur.pending) == 0 {
		return map[string]any{"entries": []any{}, "has_more": false, "cursor": c.keep(cur)}, nil
	}
	return c.page(cur), nil
}

func (c *call) latestCursor() (any, *failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cur, fail := c.newCursor()
	if fail != nil {
		return nil, fail
	}
	cur.pending = nil
	return map[string]any{"cursor": c.keep(cur)}, nil
}

func (c *call) listContinue() (any, *failure) {
	var arg struct{ Cursor string }
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cur, ok := c.cursors[arg.Cursor]
	if !ok || cur.query != "" {
		return nil, refuse("reset")
	}
	return c.page(cur), nil
}

func (c *call) longpoll() (any, *failure) {
	var arg struct {
		Cursor  string
		Timeout int
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	if arg.Timeout < 30 || arg.Timeout > 480 {
		return nil, bad("timeout %d", arg.Timeout)
	}
	deadline := time.NewTimer(time.Duration(arg.Timeout) * time.Second)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		cur, ok := c.cursors[arg.Cursor]
		changes, wait := len(cur.pending) > 0, c.changed
		for _, p := range c.log[min(cur.at, len(c.log)):] {
			changes = changes || cur.covers(p)
		}
		c.mu.Unlock()
		if !ok {
			return nil, refuse("reset")
		}
		if changes {
			return map[string]any{"changes": true}, nil
		}
		select {
		case <-wait:
		case <-deadline.C:
			return map[string]any{"changes": false}, nil
		case <-c.r.Context().Done():
			return nil, &failure{http.StatusServiceUnavailable, ""}
		}
	}
}

func (c *call) search() (any, *failure) {
	var arg struct {
		Query   string
		Options *struct {
			Path         string
			MaxResults   *int `json:"max_results"`
			OrderBy      any  `json:"order_by"`
			FileStatus   any  `json:"file_status"`
			FilenameOnly bool `json:"filename_only"`
			Extensions   any  `json:"file_extensions"`
			Categories   any  `json:"file_categories"`
			AccountID    any  `json:"account_id"`
		}
		MatchFieldOptions any  `json:"match_field_options"`
		IncludeHighlights bool `json:"include_highlights"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	if arg.Query == "" || len(arg.Query) > 1000 {
		return nil, bad("a query of %d characters", len(arg.Query))
	}
	cur := cursor{recursive: true, limit: 100, query: lower(arg.Query)}
	if o := arg.Options; o != nil {
		if o.MaxResults != nil {
			if *o.MaxResults < 1 || *o.MaxResults > 1000 {
				return nil, bad("max_results %d", *o.MaxResults)
			}
			cur.limit = *o.MaxResults
		}
		cur.path = lower(o.Path)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(c.nodes)) {
		if cur.covers(p) && matches(path.Base(p), cur.query) {
			cur.pending = append(cur.pending, c.nodes[p])
		}
	}
	return c.found(cur), nil
}

// matches reports whether each word of the query begins a word of the name.
func matches(name, query string) bool {
	words := strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	for q := range strings.FieldsSeq(query) {
		if !slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, q) }) {
			return false
		}
	}
	return true
}

func (c *call) searchContinue() (any, *failure) {
	var arg struct{ Cursor string }
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	cur, ok := c.cursors[arg.Cursor]
	if !ok || cur.query == "" {
		return nil, refuse("invalid_argument")
	}
	return c.found(cur), nil
}

// found returns the next matches. s.mu is held.
func (s *Server) found(c cursor) map[string]any {
	n := min(c.limit, s.opts.PageSize, len(c.pending))
	found := []any{}
	for _, node := range c.pending[:n] {
		found = append(found, map[string]any{
			"metadata":   map[string]any{".tag": "metadata", "metadata": s.metadata(node, true)},
			"match_type": map[string]any{".tag": "filename"},
		})
	}
	answer := map[string]any{"matches": found, "has_more": n < len(c.pending)}
	if n < len(c.pending) {
		c.pending = c.pending[n:]
		answer["cursor"] = s.keep(c)
	}
	return answer
}
