// SPDX-License-Identifier: Apache-2.0

package drive

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/files"
	"github.com/sregfs/sregfs/backends/internal/google"
	"github.com/sregfs/sregfs/backends/internal/uploads"
)

// Drive lets any number of files have one name, and knows no condition on a change. So a
// name is given in two steps (docs/decisions/0118): the file, which is whole and has been
// hidden so far, gets its name and the mark "new". Then whoever gave it looks whether it is
// alone. Of two that are new the one with the smaller id stays, and waits until the other is
// gone; one that is not new any more was there first. Only then what is replaced goes to the
// trash, and the mark goes. Readers take a new file only if there is no other.

const (
	stateKey    = "sregfs" // of the property with the state of a file
	stateUpload = "upload" // it has no name yet
	stateNew    = "new"

	maxProperty = 124 // bytes of a key and its value together

	pollTime  = 30 * time.Second // client.poll
	rivalTime = time.Second / 2  // between two looks at a rival
	maxLooks  = 20

	litterTime = 8 * 24 * time.Hour // after which an upload is dead
)

func taken(replaces string) error {
	if replaces == "" {
		return backends.Saying(fs.ErrExist, "the tag was taken meanwhile")
	}
	return backends.ErrChanged
}

// Put implements files.Writer.
func (s *store) Put(ctx context.Context, path string, src backends.Source, old string) (files.File, error) {
	s.swept.Do(func() { s.sweep(ctx) })
	memo := uploads.Recall[pushState](&s.unsaved, path, src, s.log)
	f, err := s.upload(ctx, memo, src)
	if err != nil {
		return files.File{}, err
	}
	n := &naming{client: s.client, path: path, old: old, f: f, commit: src.MayCommit, kept: true, digest: src.Digest, modified: stamp(src.Modified)}
	n.undo = func(ctx context.Context) error {
		memo.Forget()
		return s.erase(ctx, f.ID)
	}
	made, err := n.run(ctx)
	if err != nil {
		return files.File{}, err
	}
	memo.Forget()
	return s.file(path, made, made.ID)
}

// Duplicate implements files.Duplicator.
func (s *store) Duplicate(ctx context.Context, f files.File, path, old string, commit func() error) (files.File, error) {
	root, err := s.makeBase(ctx)
	if err != nil {
		return files.File{}, err
	}
	_, id := handles(f.ID)
	upload := stateUpload
	body := change{
		Name: files.Hidden + rand.Text(), Parents: []string{root}, Modified: stamp(f.Modified),
		Properties: map[string]*string{stateKey: &upload, "type": &upload}, // none that sregistry would list
	}
	made, err := s.one(ctx, http.MethodPost, "files/"+url.PathEscape(id)+"/copy", all(), body)
	if google.Reason(err) == "cannotCopyFile" {
		return files.File{}, fmt.Errorf("%w: %v", errors.ErrUnsupported, err)
	}
	if err != nil {
		return files.File{}, err
	}
	n := &naming{client: s.client, path: path, old: old, f: made, digest: f.Digest, modified: stamp(f.Modified), commit: commit}
	n.undo = func(ctx context.Context) error { return s.erase(ctx, made.ID) }
	// It copies what is there now, which another client may just have replaced.
	if size, err := made.size(); err != nil || size != f.Size || f.Digest != made.digest() {
		return files.File{}, errors.Join(backends.ErrChanged, n.undo(context.WithoutCancel(ctx)))
	}
	if made, err = n.run(ctx); err != nil {
		return files.File{}, err
	}
	return s.file(path, made, made.ID)
}

// Rename implements files.Renamer.
func (s *store) Rename(ctx context.Context, f files.File, path, old string) (files.File, error) {
	own, id := handles(f.ID)
	before, err := s.get(ctx, own)
	if err != nil {
		return files.File{}, err
	}
	bytes := before
	if own != id {
		if bytes, err = s.follow(ctx, before); err != nil {
			return files.File{}, err
		}
	}
	if before.Trashed || bytes.version() != f.Version {
		return files.File{}, backends.ErrChanged
	}
	n := &naming{client: s.client, path: path, old: old, f: before, modified: stamp(before.Modified)}
	n.undo = func(ctx context.Context) error { return s.restore(ctx, before) }
	made, err := n.run(ctx)
	if err != nil {
		return files.File{}, err
	}
	if own == id && made.version() != f.Version {
		return files.File{}, errors.Join(backends.ErrChanged, n.undo(context.WithoutCancel(ctx)))
	}
	if own != id {
		return s.file(path, bytes, own)
	}
	return s.file(path, made, own)
}

// restore gives a file the name back that it had.
func (c *client) restore(ctx context.Context, before file) error {
	now, err := c.get(ctx, before.ID)
	if err != nil {
		return err
	}
	back := change{Name: before.Name, Modified: stamp(before.Modified), Properties: map[string]*string{}}
	for key := range now.Properties {
		back.Properties[key] = nil
	}
	for key, value := range before.Properties {
		back.Properties[key] = &value
	}
	query := all()
	if !slices.Equal(now.Parents, before.Parents) {
		query.Set("addParents", strings.Join(before.Parents, ","))
		query.Set("removeParents", strings.Join(now.Parents, ","))
	}
	_, err = c.update(ctx, before.ID, query, back)
	return err
}

// A naming gives a path to a file.
type naming struct {
	*client
	path, old string // as of files.Writer's Put
	f         file
	digest    string // for the properties; may be ""
	modified  string
	commit    func() error                    // may be nil
	kept      bool                            // the file is of use later if commit refuses
	undo      func(ctx context.Context) error // takes the name from the file again
	victims   []file
}

// run returns the file under its name. Without it the file is what it was, or gone.
func (n *naming) run(ctx context.Context) (file, error) {
	unlock, err := n.lock(ctx)
	if err != nil {
		return file{}, err
	}
	defer unlock()
	found, at, err := n.lookup(ctx, n.path)
	if err != nil {
		return file{}, err
	}
	if len(found) == 1 && found[0].ID == n.f.ID {
		return n.finish(ctx, found[0]), nil // an earlier try got here
	}
	if err := n.replaceable(ctx, found); err != nil {
		return file{}, errors.Join(err, n.undo(context.WithoutCancel(ctx)))
	}
	if n.commit != nil {
		if err := n.commit(); err != nil {
			if !n.kept {
				err = errors.Join(err, n.undo(context.WithoutCancel(ctx)))
			}
			return file{}, err
		}
	}
	named, err := n.name(ctx, at)
	if err != nil {
		return file{}, n.failed(ctx, err) // it may have happened all the same
	}
	n.f = named
	if err := n.alone(ctx); err != nil {
		return file{}, n.failed(ctx, err)
	}
	for _, victim := range slices.Backward(n.victims) { // the one that counts goes last
		if _, err := n.trash(ctx, victim.ID); err != nil && !lost(err) {
			return file{}, n.failed(ctx, err)
		}
	}
	return n.finish(ctx, n.f), nil
}

// failed takes the name back after err, but for an upload that can go on.
func (n *naming) failed(ctx context.Context, err error) error {
	if n.kept && !errors.Is(err, fs.ErrExist) && !errors.Is(err, backends.ErrChanged) && !denied(err) {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	for _, victim := range n.victims {
		if f, getErr := n.get(ctx, victim.ID); getErr == nil && f.Trashed {
			err = errors.Join(err, n.untrash(ctx, victim.ID))
		}
	}
	return errors.Join(err, n.undo(ctx))
}

// finish takes the mark off a file that is alone. One that keeps it counts as well.
func (n *naming) finish(ctx context.Context, f file) file {
	done, err := n.update(ctx, f.ID, all(), change{Modified: n.modified, Properties: map[string]*string{stateKey: nil}})
	if err != nil {
		n.log.Warn("a file in the Drive keeps the mark of a push", "path", n.path, "id", f.ID, "err", err)
		return f
	}
	return done
}

// replaceable decides whether what has the path may be replaced, and by that what will be.
func (n *naming) replaceable(ctx context.Context, found []file) error {
	n.victims = slices.DeleteFunc(found, func(f file) bool { return f.ID == n.f.ID })
	switch {
	case n.old == backends.ReplaceAny:
		return nil
	case n.old == "" && len(n.victims) == 0:
		return nil
	case n.old == "" || len(n.victims) == 0:
		return taken(n.old)
	}
	now, err := n.follow(ctx, n.victims[0])
	if err != nil && !lost(err) {
		return err
	}
	if err != nil || now.version() != n.old {
		return backends.ErrChanged
	}
	return nil
}

// name gives the file its name, and the properties that the sregistry client looks for.
func (n *naming) name(ctx context.Context, at spot) (file, error) {
	state := stateNew
	body := change{Name: at.name, Modified: n.modified, Properties: map[string]*string{stateKey: &state}}
	for key, value := range properties(n.path, n.digest) {
		body.Properties[key] = &value
	}
	query := all()
	if !slices.Contains(n.f.Parents, at.parent) {
		query.Set("addParents", at.parent)
		if len(n.f.Parents) > 0 { // who sees a file need not see where it lies
			query.Set("removeParents", strings.Join(n.f.Parents, ","))
		}
	}
	return n.update(ctx, n.f.ID, query, body)
}

// properties are those of the sregistry client, as far as they fit.
func properties(path, digest string) map[string]string {
	ref, ok := files.Layout{}.Ref(path)
	if !ok {
		return nil
	}
	all := map[string]string{
		"type": "container", "collection": ref.Collection, "image": ref.Name, "tag": ref.Tag,
		"uri": ref.String(), "storage": path, "version": strings.TrimPrefix(digest, "sha256:"),
	}
	for key, value := range all {
		if value == "" || len(key)+len(value) > maxProperty {
			delete(all, key)
		}
	}
	return all
}

// alone returns when no other file has the path but what is replaced.
//
// Errors: fs.ErrExist and backends.ErrChanged if somebody else was first.
func (n *naming) alone(ctx context.Context) error {
	for range maxLooks {
		found, _, err := n.lookup(ctx, n.path)
		if err != nil {
			return err
		}
		wait := false
		for _, f := range found {
			if f.ID == n.f.ID {
				continue
			}
			i := slices.IndexFunc(n.victims, func(v file) bool { return v.ID == f.ID })
			switch {
			case i >= 0 && n.victims[i].version() == f.version():
			case i >= 0 && n.old == backends.ReplaceAny:
			case f.Properties[stateKey] == stateNew && f.ID > n.f.ID:
				wait = true // it will see this one, and go
			default:
				return taken(n.old)
			}
		}
		if !wait {
			return nil
		}
		if !backends.Pause(ctx, min(rivalTime, n.poll), nil) {
			return context.Cause(ctx)
		}
	}
	return taken(n.old) // it was left behind, and has the name
}

// lock waits until no other name is being given.
func (c *client) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case c.commits <- struct{}{}:
		return func() { <-c.commits }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Remove implements files.Writer: the file goes to the trash, and with it what else has its
// path, for the name would still be there.
func (s *store) Remove(ctx context.Context, f files.File) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	found, _, err := s.lookup(ctx, f.Path)
	if err != nil {
		return err
	}
	own, id := handles(f.ID)
	if len(found) == 0 {
		return backends.NotFound("no such image")
	}
	if found[0].ID != own || own == id && f.Version != "" && found[0].version() != f.Version {
		return backends.ErrChanged
	}
	for _, other := range slices.Backward(found) {
		gone, err := s.trash(ctx, other.ID)
		if err != nil && (!lost(err) || other.ID == own) {
			return err
		}
		if other.ID == own && own == id && f.Version != "" && gone.version() != f.Version { // it was replaced just now
			return errors.Join(backends.ErrChanged, s.untrash(context.WithoutCancel(ctx), own))
		}
	}
	return nil
}

// trash moves a file there, where it can be had back for 30 days.
func (c *client) trash(ctx context.Context, id string) (file, error) {
	yes := true
	return c.update(ctx, id, all(), change{Trashed: &yes})
}

func (c *client) untrash(ctx context.Context, id string) error {
	no := false
	_, err := c.update(ctx, id, all(), change{Trashed: &no})
	return err
}

// sweep takes away what pushes have left that nobody went on with. It is no more than tidy:
// what fails is tried by the next process.
func (c *client) sweep(ctx context.Context) {
	root, err := c.base(ctx)
	if err != nil {
		return
	}
	before := time.Now().Add(-litterTime)
	q := in([]string{root}) + " and properties has { key='" + stateKey + "' and value='" + stateUpload + "' } and createdTime < '" +
		before.UTC().Format("2006-01-02T15:04:05") + "'" + notTrashed
	for f, err := range c.query(ctx, q) {
		if err != nil {
			c.log.Debug("what dead uploads have left is not looked for", "err", err)
			return
		}
		if strings.HasPrefix(f.Name, files.Hidden) && f.Properties[stateKey] == stateUpload && f.Created.Before(before) {
			if err := c.erase(ctx, f.ID); err != nil {
				c.log.Debug("what a dead upload has left stays", "id", f.ID, "err", err)
			}
		}
	}
}
