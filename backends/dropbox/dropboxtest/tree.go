// SPDX-License-Identifier: Apache-2.0

package dropboxtest

import (
	"fmt"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

// A node is a file or folder. It never changes: what replaces it is another.
type node struct {
	path     string // as it was given
	folder   bool
	id, rev  string
	body     bodytest.Body
	hash     string
	client   time.Time
	modified time.Time
}

func lower(path string) string { return strings.ToLower(path) }

// Put stores a file, as if another client had.
func (s *Server) Put(path string, content []byte, modified time.Time) (rev string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := &node{path: path, body: s.bodies.Put(content), hash: Hash(content), client: modified, modified: modified}
	s.store(n)
	return n.rev
}

// Mkdir makes a folder with its parents.
func (s *Server) Mkdir(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mkdir(path)
}

// Remove deletes a file or folder, as if another client had.
func (s *Server) Remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(lower(path))
}

// Files returns the paths of all files, sorted.
func (s *Server) Files() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []string{}
	for _, n := range s.nodes {
		if !n.folder {
			all = append(all, n.path)
		}
	}
	slices.Sort(all)
	return all
}

// store gives n a rev and its name. s.mu is held.
func (s *Server) store(n *node) {
	s.mkdir(path.Dir(n.path))
	n.rev = fmt.Sprintf("%015x", 0x5f0000000+s.next())
	if old := s.nodes[lower(n.path)]; old != nil {
		n.id, n.path = old.id, old.path // the case of the first one stays
	} else {
		n.id = fmt.Sprintf("id:%022d", s.next())
		// Folders are found in whatever case, and keep theirs.
		n.path = strings.TrimSuffix(s.display(path.Dir(n.path)), "/") + "/" + path.Base(n.path)
	}
	s.nodes[lower(n.path)] = n
	s.revs[n.rev] = n
	s.note(lower(n.path))
}

// mkdir makes a folder with its parents. s.mu is held.
func (s *Server) mkdir(p string) {
	if p == "/" || p == "" || p == "." || s.nodes[lower(p)] != nil {
		return
	}
	s.mkdir(path.Dir(p))
	n := &node{path: strings.TrimSuffix(s.display(path.Dir(p)), "/") + "/" + path.Base(p), folder: true, id: fmt.Sprintf("id:%022d", s.next())}
	s.nodes[lower(p)] = n
	s.note(lower(p))
}

// display returns the path of an existing folder in its own case.
func (s *Server) display(p string) string {
	if n := s.nodes[lower(p)]; n != nil {
		return n.path
	}
	return p
}

// remove deletes p and what is below it. s.mu is held.
func (s *Server) remove(p string) {
	for below := range s.nodes {
		if below == p || strings.HasPrefix(below, p+"/") {
			delete(s.nodes, below)
		}
	}
	s.note(p)
}

// note writes the change log. s.mu is held.
func (s *Server) note(p string) {
	s.log = append(s.log, p)
	close(s.changed)
	s.changed = make(chan struct{})
}

// metadata returns what the API tells of n.
func (s *Server) metadata(n *node, tagged bool) map[string]any {
	display := n.path
	if s.opts.LowerParents {
		display = strings.TrimSuffix(lower(path.Dir(n.path)), "/") + "/" + path.Base(n.path)
	}
	m := map[string]any{"name": path.Base(n.path), "path_lower": lower(n.path), "path_display": display, "id": n.id}
	if tagged {
		m[".tag"] = "folder"
	}
	if n.folder {
		return m
	}
	if tagged {
		m[".tag"] = "file"
	}
	m["client_modified"], m["server_modified"] = n.client.UTC().Format(timeFormat), n.modified.UTC().Format(timeFormat)
	m["rev"], m["size"], m["content_hash"], m["is_downloadable"] = n.rev, n.body.Size(), n.hash, true
	return m
}

var readPath = regexp.MustCompile(`^(/(.|[\r\n])*|id:.*|rev:[0-9a-f]{9,})$`)

// lookup finds what a path of an argument means. s.mu is held.
func (s *Server) lookup(p string) (*node, *failure) {
	switch {
	case !readPath.MatchString(p):
		return nil, bad("path %q does not match the pattern", p)
	case strings.HasPrefix(p, "id:"):
		for _, n := range s.nodes {
			if n.id == p {
				return n, nil
			}
		}
		return nil, refuse("path/not_found")
	case strings.HasPrefix(p, "rev:"):
		if n := s.revs[p[4:]]; n != nil {
			return n, nil
		}
		return nil, refuse("path/not_found")
	case strings.HasSuffix(p, "/") || strings.Contains(p, "//"):
		return nil, refuse("path/malformed_path")
	}
	if n := s.nodes[lower(p)]; n != nil {
		return n, nil
	}
	return nil, refuse("path/not_found")
}

var reserved = []string{"desktop.ini", "thumbs.db", ".ds_store", "icon\r", ".dropbox", ".dropbox.attr"}

// CheckComponent returns why Dropbox takes no part of a path like that, as a
// tag of its errors; "" if it takes it.
func CheckComponent(part string) string {
	switch {
	case part == "" || part == "." || part == ".." || strings.ContainsAny(part, `/\`) || utf8.RuneCountInString(part) > 255 ||
		strings.HasSuffix(part, ".") || strings.HasSuffix(part, " "):
		return "malformed_path"
	case slices.Contains(reserved, lower(part)) || strings.HasPrefix(part, "~$") || strings.HasPrefix(part, ".~") || !utf8.ValidString(part):
		return "disallowed_name"
	}
	for _, r := range part {
		if r < 0x20 || r == 0x7f {
			return "disallowed_name"
		}
	}
	return ""
}

// checkNew looks whether p can be the path of something new. s.mu is held.
func (s *Server) checkNew(p string) *failure {
	if !strings.HasPrefix(p, "/") {
		return bad("path %q does not match the pattern", p)
	}
	at := ""
	for part := range strings.SplitSeq(p[1:], "/") {
		if why := CheckComponent(part); why != "" {
			return refuse("path/" + why)
		}
		if n := s.nodes[lower(at)]; at != "" && n != nil && !n.folder {
			return refuse("path/conflict/file_ancestor")
		}
		at += "/" + part
	}
	return nil
}

func (c *call) getMetadata() (any, *failure) {
	var arg struct {
		Path                   string
		IncludeMediaInfo       bool `json:"include_media_info"`
		IncludeDeleted         bool `json:"include_deleted"`
		IncludeExplicitMembers bool `json:"include_has_explicit_shared_members"`
		IncludePropertyGroups  any  `json:"include_property_groups"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, fail := c.lookup(arg.Path)
	if fail != nil {
		return nil, fail
	}
	return c.metadata(n, true), nil
}

func (c *call) download() (any, *failure) {
	var arg struct{ Path, Rev string }
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	if arg.Rev != "" {
		return nil, bad("rev is deprecated")
	}
	c.mu.Lock()
	n, fail := c.lookup(arg.Path)
	c.mu.Unlock()
	switch {
	case fail != nil:
		return nil, fail
	case n.folder:
		return nil, refuse("path/not_file")
	}
	c.w.Header().Set("Dropbox-Api-Result", ascii(c.metadata(n, false)))
	c.w.Header().Set("Content-Type", "application/octet-stream")
	c.w.Header().Set("Etag", strconv.Quote("W/"+n.rev))
	http.ServeContent(c.w, c.r, "", time.Time{}, n.body.Reader())
	return nil, nil
}

func (c *call) delete() (any, *failure) {
	var arg struct {
		Path      string
		ParentRev string `json:"parent_rev"`
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, fail := c.lookup(arg.Path)
	switch {
	case fail != nil:
		return nil, &failure{fail.status, strings.ReplaceAll(fail.body, `"path"`, `"path_lookup"`)}
	case arg.ParentRev != "" && arg.ParentRev != n.rev:
		return nil, refuse("path_write/conflict/file")
	}
	c.remove(lower(n.path))
	return map[string]any{"metadata": c.metadata(n, true)}, nil
}

func (c *call) copy() (any, *failure) {
	var arg struct {
		FromPath               string `json:"from_path"`
		ToPath                 string `json:"to_path"`
		AllowSharedFolder      bool   `json:"allow_shared_folder"` // has no effect
		Autorename             bool
		AllowOwnershipTransfer bool `json:"allow_ownership_transfer"` // of moves
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	if arg.Autorename || strings.HasPrefix(arg.FromPath, "rev:") {
		return nil, bad("copy of %q, autorename %v", arg.FromPath, arg.Autorename)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	from, fail := c.lookup(arg.FromPath)
	if fail != nil {
		return nil, &failure{fail.status, strings.ReplaceAll(fail.body, `"path"`, `"from_lookup"`)}
	}
	if from.folder {
		return nil, bad("this fake copies no folders")
	}
	if fail := c.checkNew(arg.ToPath); fail != nil {
		return nil, &failure{fail.status, strings.ReplaceAll(fail.body, `"path"`, `"to"`)}
	}
	if n := c.nodes[lower(arg.ToPath)]; n != nil {
		if n.folder {
			return nil, refuse("to/conflict/folder")
		}
		return nil, refuse("to/conflict/file")
	}
	n := *from
	n.path, n.modified = arg.ToPath, time.Now()
	c.store(&n)
	return map[string]any{"metadata": c.metadata(&n, true)}, nil
}

func (c *call) createFolder() (any, *failure) {
	var arg struct {
		Path       string
		Autorename bool
	}
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if fail := c.checkNew(arg.Path); fail != nil {
		return nil, fail
	}
	if n := c.nodes[lower(arg.Path)]; n != nil {
		if n.folder {
			return nil, refuse("path/conflict/folder")
		}
		return nil, refuse("path/conflict/file")
	}
	c.mkdir(arg.Path)
	return map[string]any{"metadata": c.metadata(c.nodes[lower(arg.Path)], false)}, nil
}

func (c *call) restore() (any, *failure) {
	var arg struct{ Path, Rev string }
	if fail := c.decode(&arg); fail != nil {
		return nil, fail
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.revs[arg.Rev]
	if old == nil || lower(old.path) != lower(arg.Path) {
		return nil, refuse("invalid_revision")
	}
	n := *old
	c.store(&n)
	return c.metadata(&n, false), nil
}
