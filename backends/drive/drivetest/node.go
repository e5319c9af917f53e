// SPDX-License-Identifier: Apache-2.0

package drivetest

import (
	"crypto/md5" //nolint:gosec // as Drive does
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends/internal/bodytest"
)

const (
	ownTypes     = "application/vnd.google-apps."
	folderType   = ownTypes + "folder"
	shortcutType = ownTypes + "shortcut"
	docType      = ownTypes + "document"
)

// A node is a file, a folder, or a shortcut.
type node struct {
	id, name, kind string
	parent         string // "" for the top of a drive
	drive          string // of a shared drive
	target         string // of a shortcut
	created        time.Time
	modified       time.Time
	properties     map[string]string
	revisions      []revision
	trashed        bool
	shared         bool
	abusive        bool
}

type revision struct {
	id   string
	body bodytest.Body
	md5  string
	sha  string
}

func (n *node) head() revision {
	if len(n.revisions) == 0 {
		return revision{}
	}
	return n.revisions[len(n.revisions)-1]
}

// Root returns the id of My Drive.
func (s *Server) Root() string { return s.root }

// AddFolder makes a folder.
func (s *Server) AddFolder(parent, name string) (id string) {
	return s.add(&node{name: name, kind: folderType, parent: parent})
}

// AddShared makes a folder that somebody else shares.
func (s *Server) AddShared(name string) (id string) {
	s.mu.Lock()
	other := s.make(&node{name: "Other", kind: folderType})
	s.mu.Unlock()
	return s.add(&node{name: name, kind: folderType, parent: other.id, shared: true})
}

// AddShortcut makes a shortcut.
func (s *Server) AddShortcut(parent, name, target string) (id string) {
	return s.add(&node{name: name, kind: shortcutType, parent: parent, target: target})
}

// AddDoc makes a document of Google's own, which has no bytes.
func (s *Server) AddDoc(parent, name string) (id string) {
	return s.add(&node{name: name, kind: docType, parent: parent})
}

// AddFile makes a file, with pairs of properties.
func (s *Server) AddFile(parent, name string, content []byte, modified time.Time, properties ...string) (id string) {
	n := &node{name: name, kind: "application/octet-stream", parent: parent, modified: modified, properties: map[string]string{}}
	for i := 0; i+1 < len(properties); i += 2 {
		n.properties[properties[i]] = properties[i+1]
	}
	n.revisions = []revision{s.revise(s.bodies.Put(content))}
	return s.add(n)
}

// SetContent gives a file other bytes.
func (s *Server) SetContent(id string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[id]
	n.revisions = append(n.revisions, s.revise(s.bodies.Put(content)))
	n.modified = s.now()
	s.touch(n)
}

// SetCreated makes a file older.
func (s *Server) SetCreated(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[id].created = at
}

// SetTrashed moves something to the trash.
func (s *Server) SetTrashed(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[id].trashed = true
	s.touch(s.nodes[id])
}

// SetAbusive says that a file is malware.
func (s *Server) SetAbusive(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes[id].abusive = true
}

// Delete takes something away for ever.
func (s *Server) Delete(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(s.nodes[id])
}

// Names returns the names of all files that are not in the trash; with trash those that are.
func (s *Server) Names(trash bool) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.kind != folderType && s.inTrash(n) == trash {
			names = append(names, n.name)
		}
	}
	slices.Sort(names)
	return names
}

// Properties returns those of the file with that name, and where it lies.
func (s *Server) Properties(name string) (properties map[string]string, parent string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.nodes {
		if n.name == name && !s.inTrash(n) {
			return maps.Clone(n.properties), n.parent
		}
	}
	return nil, ""
}

func (s *Server) add(n *node) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nodes[n.parent] == nil {
		s.t.Fatalf("drivetest: no folder %q", n.parent)
	}
	s.make(n)
	s.touch(n)
	return n.id
}

// make gives a node what all have.
func (s *Server) make(n *node) *node {
	if n.id == "" {
		n.id = "1" + rand.Text()
	}
	n.created = s.now()
	if n.modified.IsZero() {
		n.modified = n.created
	}
	if parent := s.nodes[n.parent]; parent != nil {
		n.drive = parent.drive
	}
	s.nodes[n.id] = n
	return n
}

// now is later each time.
func (s *Server) now() time.Time {
	s.last = s.last.Add(time.Millisecond)
	if now := time.Now().UTC().Truncate(time.Millisecond); now.After(s.last) {
		s.last = now
	}
	return s.last
}

func (s *Server) revise(body bodytest.Body) revision {
	m, h := md5.New(), sha256.New() //nolint:gosec // as Drive does
	body.CopyTo(m, h)
	return revision{id: "0B" + rand.Text(), body: body, md5: fmt.Sprintf("%x", m.Sum(nil)), sha: fmt.Sprintf("%x", h.Sum(nil))}
}

func (s *Server) touch(n *node) { s.log = append(s.log, n.id) }

// alias returns the id that "root" stands for.
func (s *Server) alias(id string) string {
	if id == "root" {
		return s.root
	}
	return id
}

func (s *Server) inTrash(n *node) bool {
	for ; n != nil; n = s.nodes[n.parent] {
		if n.trashed {
			return true
		}
	}
	return false
}

// remove takes n away and what is in it.
func (s *Server) remove(n *node) {
	delete(s.nodes, n.id)
	s.log = append(s.log, n.id)
	for _, child := range s.nodes {
		if child.parent == n.id {
			s.remove(child)
		}
	}
}

// resource is n as the API tells it.
func (s *Server) resource(n *node) map[string]any {
	out := map[string]any{
		"kind": "drive#file", "id": n.id, "name": n.name, "mimeType": n.kind, "createdTime": rfc3339(n.created), "modifiedTime": rfc3339(n.modified),
		"trashed": s.inTrash(n), "webViewLink": s.URL + "/file/d/" + n.id + "/view",
	}
	if n.parent != "" {
		out["parents"] = []string{n.parent}
	}
	if len(n.properties) > 0 {
		out["properties"] = n.properties
	}
	if n.drive != "" {
		out["driveId"] = n.drive
	}
	if n.target != "" {
		kind := "application/octet-stream"
		if target := s.nodes[n.target]; target != nil {
			kind = target.kind
		}
		out["shortcutDetails"] = map[string]any{"targetId": n.target, "targetMimeType": kind}
	}
	if r := n.head(); r.id != "" {
		out["size"], out["md5Checksum"], out["sha256Checksum"], out["headRevisionId"] = strconv.FormatInt(r.body.Size(), 10), r.md5, r.sha, r.id
	}
	return out
}

func rfc3339(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// describe takes over what a body says of n.
func (c *call) describe(n *node) *failure {
	for key, value := range c.body {
		switch key {
		case "name":
			n.name = value.(string)
		case "mimeType":
			n.kind = value.(string)
		case "trashed":
			n.trashed = value.(bool)
		case "modifiedTime":
			at, err := time.Parse(time.RFC3339, value.(string))
			if err != nil {
				return c.bad("%v", err)
			}
			n.modified = at
		case "properties":
			if f := c.setProperties(n, value.(map[string]any)); f != nil {
				return f
			}
		case "parents":
			if n.parent != "" && c.m.ID == "drive.files.update" {
				return &failure{403, "fieldNotWritable", "The parents field is not directly writable in update requests. Use the addParents and removeParents parameters instead."}
			}
			parents := value.([]any)
			if len(parents) != 1 || c.nodes[c.alias(parents[0].(string))] == nil {
				return &failure{404, "notFound", "File not found: ."}
			}
			n.parent = c.alias(parents[0].(string))
		default:
			return c.bad("%s with %q", c.m.ID, key)
		}
	}
	return nil
}

// setProperties sets those that are not null.
// https://developers.google.com/workspace/drive/api/guides/properties
func (c *call) setProperties(n *node, properties map[string]any) *failure {
	all := maps.Clone(n.properties)
	if all == nil {
		all = map[string]string{}
	}
	for key, value := range properties {
		text, ok := value.(string)
		if !ok {
			delete(all, key)
			continue
		}
		if all[key] = text; len(key)+len(text) > 124 {
			return c.bad("a property of %d bytes", len(key)+len(text))
		}
	}
	if len(all) > 30 {
		return c.bad("%d properties", len(all))
	}
	n.properties = all
	return nil
}

func (c *call) create() (any, *failure) {
	n := &node{kind: "application/octet-stream"}
	if f := c.describe(n); f != nil {
		return nil, f
	}
	if n.kind != folderType || n.parent == "" {
		return nil, c.bad("files.create of a %s in %q without bytes", n.kind, n.parent)
	}
	c.make(n)
	c.touch(n)
	return c.resource(n), nil
}

func (c *call) update(n *node) (any, *failure) {
	if len(c.body) == 0 {
		return nil, c.bad("files.update of nothing")
	}
	modified := n.modified
	was := *n
	if f := c.describe(n); f != nil {
		return nil, f
	}
	if n.modified.Equal(modified) && c.body["modifiedTime"] == nil && c.body["trashed"] == nil {
		n.modified = c.now()
	}
	add, remove := c.param("addParents"), c.param("removeParents")
	if add != "" || remove != "" {
		if c.nodes[c.alias(add)] == nil || strings.Contains(add, ",") || remove != was.parent || c.nodes[c.alias(add)].drive != n.drive {
			*n = was
			return nil, c.bad("files.update adds the parent %q and removes %q of %q", add, remove, was.parent)
		}
		n.parent = c.alias(add)
	}
	c.touch(n)
	return c.resource(n), nil
}

func (c *call) copy(from *node) (any, *failure) {
	n := &node{name: "Copy of " + from.name, kind: from.kind, properties: maps.Clone(from.properties), parent: ""}
	if f := c.describe(n); f != nil {
		return nil, f
	}
	if n.parent == "" {
		n.parent = from.parent
	}
	if strings.HasPrefix(from.kind, ownTypes) {
		return nil, &failure{403, "cannotCopyFile", "This file cannot be copied by the user."}
	}
	n.revisions = []revision{{id: "0B" + rand.Text(), body: from.head().body, md5: from.head().md5, sha: from.head().sha}}
	c.make(n)
	c.touch(n)
	return c.resource(n), nil
}
