// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
)

// Drive knows ids, and folders in which several things can have one name. A path is found by
// asking for the names in it, from the root on:
//
//	c/i:t.sif   the file "c/i:t.sif" in the root, or the file "i:t.sif" in a folder "c" there
//
// Folders of one name are one folder here. Of files of one path the one counts that choose
// brings to the front. Nothing but the root's id is remembered: what moves is seen at once.

const (
	maxFolders = 20 // of one name in one folder, that are looked into
	notTrashed = " and trashed = false"
	folderLike = "(mimeType = '" + folderType + "' or mimeType = '" + shortcutType + "')"
)

var errNoRoot = backends.NotFound("there is no such folder in the Drive: the first push makes it")

// base returns the id of the root folder.
//
// Errors: errNoRoot, an fs.ErrNotExist.
func (c *client) base(ctx context.Context) (string, error) {
	if c.rootID != "" {
		return c.rootID, nil
	}
	c.mu.Lock()
	id, known := c.found, c.found != "" && time.Since(c.since) < rootTime
	c.mu.Unlock()
	if known {
		return id, nil
	}
	id = cmp.Or(c.drive, "root")
	for i, name := range c.root {
		all, err := c.subfolders(ctx, []string{id}, name)
		if err == nil && len(all) == 0 && i == 0 && c.drive == "" {
			// A service account has its folder from somebody who shares it.
			all, err = c.folders(ctx, "sharedWithMe = true and name = "+quote(name), name)
		}
		if err != nil {
			return "", err
		}
		if len(all) == 0 {
			return "", errNoRoot
		}
		c.warn(strings.Join(c.root[:i+1], "/"), len(all))
		id = all[0]
	}
	if id == "root" {
		f, err := c.get(ctx, id) // its own id, which parents tell
		if err != nil {
			return "", err
		}
		id = f.ID
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found, c.since = id, time.Now()
	return id, nil
}

// forget has the root looked for again.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found = ""
}

// makeBase is base, and makes the folders that are missing. Two that do so at the same time
// agree on the older ones.
func (c *client) makeBase(ctx context.Context) (string, error) {
	id, err := c.base(ctx)
	if !errors.Is(err, errNoRoot) {
		return id, err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	id = cmp.Or(c.drive, "root")
	for _, name := range c.root {
		all, err := c.subfolders(ctx, []string{id}, name)
		if err == nil && len(all) == 0 {
			var made file
			made, err = c.one(ctx, http.MethodPost, "files", url.Values{"supportsAllDrives": {"true"}}, change{Name: name, MimeType: folderType, Parents: []string{id}})
			if err == nil {
				all, err = c.subfolders(ctx, []string{id}, name)
			}
			if err == nil && len(all) == 0 {
				all = []string{made.ID} // not listed yet
			}
			if err == nil && all[0] != made.ID {
				err = c.erase(ctx, made.ID) // it is empty
			}
		}
		if err != nil {
			return "", err
		}
		id = all[0]
	}
	return c.base(ctx)
}

// subfolders returns the ids of the folders of that name in any of parents, the oldest
// first: whoever was first keeps being it.
func (c *client) subfolders(ctx context.Context, parents []string, name string) ([]string, error) {
	return c.folders(ctx, in(parents)+" and name = "+quote(name), name)
}

func (c *client) folders(ctx context.Context, q, name string) ([]string, error) {
	var found []file
	for f, err := range c.query(ctx, q+" and "+folderLike+notTrashed) {
		if err != nil {
			return nil, err
		}
		if f.Name == name { // Drive looks away from cases
			found = append(found, f)
		}
	}
	return folderIDs(found, nil), nil
}

// folderIDs returns which folders some things are or lead to, the oldest first, without those
// in chain, which would lead in circles.
func folderIDs(found []file, chain []string) []string {
	slices.SortFunc(found, func(a, b file) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	var ids []string
	for _, f := range found {
		id, ok := f.folder()
		if ok && id != "" && !slices.Contains(chain, id) && !slices.Contains(ids, id) && len(ids) < maxFolders {
			ids = append(ids, id)
		}
	}
	return ids
}

// in is the condition that something lies in one of the folders.
func in(parents []string) string {
	var each []string
	for _, id := range parents {
		each = append(each, quote(id)+" in parents")
	}
	return "(" + strings.Join(each, " or ") + ")"
}

// A spot is where a path is, or would be.
type spot struct {
	root, parent, name string
}

// lookup returns all files that a path is, the one that counts first, and where a new one
// goes: into the folder of the collection if there is one, else into the root. It costs one
// request, and one more for each part of the path where folders are.
//
// Errors: errNoRoot.
func (c *client) lookup(ctx context.Context, path string) ([]file, spot, error) {
	root, err := c.base(ctx)
	if err != nil {
		return nil, spot{}, err
	}
	parts := strings.Split(path, "/")
	q := in([]string{root}) + " and (name = " + quote(path)
	if len(parts) > 1 {
		q += " or name = " + quote(parts[0])
	}
	var found, folders []file
	for f, err := range c.query(ctx, q+")"+notTrashed) {
		if err != nil {
			return nil, spot{}, err
		}
		switch _, isFolder := f.folder(); {
		case isFolder && len(parts) > 1 && f.Name == parts[0]:
			folders = append(folders, f)
		case !isFolder && f.Name == path && f.hasBytes():
			found = append(found, f)
		}
	}
	at, chain := spot{root, root, path}, []string{root}
	ids := folderIDs(folders, chain)
	for _, part := range parts[1:max(len(parts)-1, 1)] {
		if len(ids) == 0 {
			break
		}
		chain = append(chain, ids...)
		below, err := c.subfolders(ctx, ids, part)
		if err != nil {
			return nil, spot{}, err
		}
		ids = slices.DeleteFunc(below, func(id string) bool { return slices.Contains(chain, id) })
	}
	if len(ids) > 0 {
		name := parts[len(parts)-1]
		at.parent, at.name = ids[0], name
		for f, err := range c.query(ctx, in(ids)+" and name = "+quote(name)+notTrashed) {
			if err != nil {
				return nil, spot{}, backends.BrokenOff(err)
			}
			if _, isFolder := f.folder(); !isFolder && f.Name == name && f.hasBytes() {
				found = append(found, f)
			}
		}
	}
	choose(found)
	return found, at, nil
}

// choose brings the file to the front that counts for its path. A push that is not through
// yet (commit.go) comes last. Else it is the newest, as the sregistry client makes another
// file when it pushes a name again.
func choose(found []file) {
	rank := func(f file) int {
		if f.Properties[stateKey] == stateNew {
			return 1
		}
		return 0
	}
	slices.SortFunc(found, func(a, b file) int {
		return cmp.Or(rank(a)-rank(b), b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
}

// warn tells once that there are several of a path.
func (c *client) warn(path string, n int) {
	if _, known := c.warned.Get(path); n > 1 && !known {
		c.warned.Put(path, true)
		c.log.Warn("the Drive has several files or folders of one name; one counts", "path", path, "count", n)
	}
}

// Stat implements files.Store.
func (s *store) Stat(ctx context.Context, path string) (files.File, error) {
	found, _, err := s.lookup(ctx, path)
	if err != nil {
		return files.File{}, err
	}
	if len(found) == 0 {
		return files.File{}, backends.NotFound("no such image")
	}
	s.warn(path, len(found))
	f, err := s.follow(ctx, found[0])
	if err != nil {
		return files.File{}, err
	}
	s.seen.Put(f.ID, place{path: path})
	return s.file(path, f, found[0].ID)
}

// follow returns the file that a shortcut leads to.
func (c *client) follow(ctx context.Context, f file) (file, error) {
	if f.Shortcut == nil {
		return f, nil
	}
	target, err := c.get(ctx, f.Shortcut.Target)
	if err == nil && (target.Trashed || target.Shortcut != nil || !target.hasBytes()) {
		err = backends.NotFound("the shortcut leads to what is in the trash")
	}
	return target, err
}

// file is f at a path, where it is known by handle: its own id, or that of a shortcut.
func (c *client) file(path string, f file, handle string) (files.File, error) {
	size, err := f.size()
	if err != nil {
		return files.File{}, err
	}
	if f.ID != handle {
		handle += shortcutMark + f.ID
	}
	return files.File{
		Path: path, Size: size, Version: f.version(), Digest: f.digest(), Modified: f.Modified, URL: f.Link, ID: handle,
	}, nil
}

// shortcutMark is between the id of a shortcut and that of what it leads to.
const shortcutMark = ">"

// handles returns the id of what lies in the folder and that of what has the bytes.
func handles(id string) (own, bytes string) {
	own, bytes, ok := strings.Cut(id, shortcutMark)
	if !ok {
		return own, own
	}
	return own, bytes
}

// List implements files.Store. Of files of one path it yields the one that counts.
func (s *store) List(ctx context.Context, folder, prefix string) iter.Seq2[files.File, error] {
	return func(yield func(files.File, error) bool) {
		l := &listing{client: s.client, folder: folder, paths: map[string][]file{}, folders: map[string]bool{}}
		err := l.read(ctx, prefix)
		switch {
		case folder == "" && lost(err) && s.rootID != "":
			err = backends.Saying(fs.ErrPermission, "there is no folder with the id %q (root_id), or this login may not see it", s.rootID)
		case folder == "" && lost(err): // the root is known: it is no empty one
			s.forget()
			err = backends.BrokenOff(err)
		}
		if err != nil {
			yield(files.File{}, err)
			return
		}
		for path := range l.folders {
			if !yield(files.File{Path: path, Folder: true}, nil) {
				return
			}
		}
		for path, found := range l.paths {
			choose(found)
			s.warn(path, len(found))
			f := found[0]
			told, err := s.file(path, f, f.ID)
			if err != nil || f.Shortcut != nil {
				told = files.File{Path: path, Size: -1} // asked for when somebody wants to know
			}
			if !yield(told, nil) {
				return
			}
		}
	}
}

// A listing is what lies in one folder, by path.
type listing struct {
	*client
	folder  string
	paths   map[string][]file
	folders map[string]bool
	n       int
}

const maxListed = 1_000_000 // in one folder

// read asks for what is in the root and belongs to the folder by its name, and for what is in
// folders of that path.
//
// Errors: fs.ErrNotExist if there is no such folder.
func (l *listing) read(ctx context.Context, prefix string) error {
	root, err := l.base(ctx)
	if errors.Is(err, errNoRoot) && l.folder == "" {
		return nil // nothing was pushed yet
	}
	if err != nil {
		return err
	}
	parts := strings.Split(l.folder, "/")
	if l.folder == "" {
		return l.children(ctx, []string{root}, begins(prefix), []string{root})
	}
	var folders []file
	flat := false
	for f, err := range l.query(ctx, in([]string{root})+begins(parts[0])+notTrashed) {
		if err != nil {
			return err
		}
		_, isFolder := f.folder()
		switch rest, below := strings.CutPrefix(f.Name, l.folder+"/"); {
		case isFolder && f.Name == parts[0]:
			folders = append(folders, f)
		case !isFolder && below:
			flat = l.add(f, rest) || flat
		}
		if l.n > maxListed {
			return errTooMany
		}
	}
	chain := []string{root}
	ids := folderIDs(folders, chain)
	for _, part := range parts[1:] {
		if len(ids) == 0 {
			break
		}
		chain = append(chain, ids...)
		below, err := l.subfolders(ctx, ids, part)
		if err != nil {
			return backends.BrokenOff(err)
		}
		ids = slices.DeleteFunc(below, func(id string) bool { return slices.Contains(chain, id) })
	}
	if len(ids) == 0 {
		if !flat {
			return backends.NotFound("no such folder")
		}
		return nil
	}
	for _, id := range ids {
		l.seen.Put(id, place{path: l.folder, folder: true})
	}
	if err := l.children(ctx, ids, begins(prefix), append(chain, ids...)); err != nil {
		return backends.BrokenOff(err)
	}
	return nil
}

var errTooMany = fmt.Errorf("%w: a folder with more than %d files", backends.ErrBadAnswer, maxListed)

// children reads what lies in folders.
func (l *listing) children(ctx context.Context, ids []string, which string, chain []string) error {
	for f, err := range l.query(ctx, in(ids)+which+notTrashed) {
		if err != nil {
			return err
		}
		id, isFolder := f.folder()
		switch {
		case isFolder && !strings.Contains(f.Name, "/") && !slices.Contains(chain, id):
			l.folders[files.Join(l.folder, f.Name)] = true
			l.seen.Put(id, place{path: files.Join(l.folder, f.Name), folder: true})
		case !isFolder && (l.folder == "" || !strings.Contains(f.Name, "/")):
			l.add(f, f.Name)
		}
		if l.n++; l.n > maxListed {
			return errTooMany
		}
	}
	return nil
}

// add takes a file whose name is rest below the folder, and reports whether it is one.
func (l *listing) add(f file, rest string) bool {
	if !f.hasBytes() || slices.Contains(strings.Split(rest, "/"), "") {
		return false
	}
	l.n++
	l.seen.Put(f.ID, place{path: files.Join(l.folder, rest)})
	if first, _, deeper := strings.Cut(rest, "/"); deeper {
		l.folders[files.Join(l.folder, first)] = true
		return true
	}
	path := files.Join(l.folder, rest)
	l.paths[path] = append(l.paths[path], f)
	return true
}

// begins is a condition that names fulfil which begin with prefix, and maybe others: Drive
// compares whole words from their beginnings, and what it takes for a word is not said. So it
// gets the letters and digits of ASCII before anything else.
func begins(prefix string) string {
	n := 0
	for n < len(prefix) && (prefix[n] >= '0' && prefix[n] <= '9' || prefix[n]|0x20 >= 'a' && prefix[n]|0x20 <= 'z') {
		n++
	}
	if n == 0 {
		return ""
	}
	return " and name contains " + quote(prefix[:n])
}

// lost reports whether err says that a file is not there.
func lost(err error) bool { return errors.Is(err, fs.ErrNotExist) }
