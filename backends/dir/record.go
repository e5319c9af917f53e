// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/dir/clientdb"
	"github.com/sregfs/sregfs/backends/disk"
)

var _ backends.Recorder = (*client)(nil)

// make opens the store, which comes into being if need be.
func (c *client) make() (*tree, error) {
	if err := os.MkdirAll(c.path, 0o777); err != nil {
		return nil, localError(err)
	}
	return c.open()
}

// locked calls fn with the store open and locked.
func (c *client) locked(ctx context.Context, fn func(*tree) error) error {
	t, err := c.make()
	if err != nil {
		return err
	}
	defer t.Close()
	unlock, err := t.lock(ctx)
	if err != nil {
		return localError(err)
	}
	defer unlock()
	return fn(t)
}

// Record implements backends.Recorder.
func (c *client) Record(ctx context.Context, ref backends.Ref, location, replaces string) (img backends.Image, err error) {
	rec := record{Tag: ref.Tag, Created: time.Now().UTC().Truncate(time.Second), Client: localClient}
	ref.Version = ""
	if isURL(location) {
		rec.URL = location
		err = c.urls.check(ctx, location)
	} else {
		rec.Path = location
		err = checkFile(location)
	}
	if err != nil {
		return img, err
	}
	err = c.locked(ctx, func(t *tree) error {
		switch old, err := t.replaced(ctx, ref, backends.Source{Replaces: replaces}); {
		case err != nil:
			return err
		case old != nil:
			return backends.Saying(fs.ErrExist, "there is a file of that name in the store: remove or rename it first")
		}
		if err := t.records.put(ctx, ref, rec, ""); err != nil {
			return err
		}
		img, err = c.statRecorded(ctx, &t.view, ref)
		return err
	})
	return img, err
}

// localClient is what the old client reads as the client of an image of ours.
const localClient = "local"

// checkFile reports whether a file on this machine can be recorded.
// Errors: fs.ErrInvalid; those of the local disk.
func checkFile(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: %q is neither a URL nor an absolute path", fs.ErrInvalid, path)
	}
	f, err := backends.OpenRegular(path, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return backends.NotFound("no file %s", path)
	}
	if err != nil {
		return localError(err)
	}
	defer f.Close()
	if err := checkImage(f); !errors.Is(err, backends.ErrNotImage) {
		return localError(err)
	}
	return backends.Saying(fs.ErrInvalid, "%s begins neither as SIF nor as squashfs nor as ext3", path)
}

// put makes rec the record of ref; was is the path of the file before, if it was moved.
func (r *records) put(ctx context.Context, ref backends.Ref, rec record, was string) error {
	own, err := r.own(r.file(ref.Collection, ref.Name))
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(own), func(o record) bool { return o.Tag == rec.Tag && o.Removed.IsZero() })
	if err := r.save(ref.Collection, ref.Name, append([]record{rec}, rest...)); err != nil {
		return err
	}
	r.update(ctx, ref, rec, was)
	return nil
}

// drop forgets what is recorded of ref: all of its tag, or one version. What the database
// says is removed there, if that is kept up to date, else hidden by a note.
func (r *records) drop(ctx context.Context, ref backends.Ref) error {
	is := func(rec record) bool {
		return rec.Tag == ref.Tag && (ref.Version == "" || rec.Version == ref.Version)
	}
	own, err := r.own(r.file(ref.Collection, ref.Name))
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(own), is)
	changed := len(kept) < len(own)
	r.remove(ctx, ref)
	if slices.ContainsFunc(r.with(ctx, kept, ref.Collection, ref.Name), func(rec record) bool {
		_, there := rec.there(ref)
		return rec.row != 0 && is(rec) && there
	}) {
		kept = append(kept, record{Tag: ref.Tag, Version: ref.Version, Removed: time.Now().UTC()})
		changed = true
	}
	if !changed {
		return nil
	}
	return r.save(ref.Collection, ref.Name, kept)
}

// dropOwn forgets our own records of ref's tag.
func (r *records) dropOwn(ref backends.Ref) error {
	own, err := r.own(r.file(ref.Collection, ref.Name))
	kept := slices.DeleteFunc(slices.Clone(own), func(o record) bool { return o.Tag == ref.Tag && o.Removed.IsZero() })
	if err != nil || len(kept) == len(own) {
		return err
	}
	return r.save(ref.Collection, ref.Name, kept)
}

// moved makes the records follow a file of the store that has another name now.
func (r *records) moved(ctx context.Context, from, to backends.Ref, was, now string) error {
	known := r.image(ctx, from.Collection, from.Name)
	i := slices.IndexFunc(known, func(rec record) bool { return rec.Path == was })
	if i < 0 {
		r.update(ctx, to, record{Tag: to.Tag, Path: now, Client: localClient, Created: time.Now()}, was)
		return nil
	}
	rec := known[i]
	rec.Tag, rec.Path = to.Tag, now
	if err := r.put(ctx, to, rec, was); err != nil {
		return err
	}
	own, err := r.own(r.file(from.Collection, from.Name))
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(own), func(o record) bool { return o.Path == was })
	if len(kept) == len(own) {
		return nil
	}
	return r.save(from.Collection, from.Name, kept)
}

// The database of the old client is kept up to date as far as that works: an image whose
// file is in the store is not refused because that cannot be noted.

// update has the database say rec of ref. was is where the file was before.
func (r *records) update(ctx context.Context, ref backends.Ref, rec record, was string) {
	r.change(ctx, func(tx *clientdb.Tx) error {
		row := clientdb.Row{
			Collection: ref.Collection, Name: ref.Name, Tag: ref.Tag, Version: rec.Version, Client: rec.Client, Image: rec.Path, URL: rec.URL,
			Created: rec.Created,
		}
		if row.Version == "" {
			row.Version = split(filepath.Base(rec.Path)).version
		}
		row.URI = (backends.Ref{Collection: row.Collection, Name: row.Name, Tag: row.Tag, Version: row.Version}).String()
		row.Metrics = metricsOf(row, rec)
		if was != "" && rec.row != 0 { // its row may be that of another name
			row.ID = rec.row
			return tx.Put(row)
		}
		rows, err := tx.Image(ref.Collection, ref.Name)
		if err != nil {
			return err
		}
		for _, old := range rows {
			if old.Tag != ref.Tag || old.Image != was && old.Version != row.Version && !gone(old.Image) {
				continue
			}
			if row.ID == 0 { // the newest is made what it says now
				if len(rec.Metrics) == 0 {
					rec.Metrics = json.RawMessage(old.Metrics)
					row.Metrics = metricsOf(row, rec)
				}
				row.ID, row.Client = old.ID, old.Client
				continue
			}
			if err := tx.Delete(old.ID); err != nil {
				return err
			}
		}
		return tx.Put(row)
	})
}

// remove has the database forget what it says of ref.
func (r *records) remove(ctx context.Context, ref backends.Ref) {
	r.change(ctx, func(tx *clientdb.Tx) error {
		rows, err := tx.Image(ref.Collection, ref.Name)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row.Tag == ref.Tag && (ref.Version == "" || ref.Version == row.Version) {
				if err := tx.Delete(row.ID); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (r *records) change(ctx context.Context, fn func(*clientdb.Tx) error) {
	if r.db == nil || !r.write {
		return
	}
	if err := r.db.Update(ctx, fn); err != nil && ctx.Err() == nil {
		r.log.Warn("the database of sregistry is not up to date", "err", err)
	}
}

func gone(path string) bool {
	_, err := os.Stat(path)
	return path != "" && errors.Is(err, fs.ErrNotExist)
}

// metricsOf writes what the client keeps of an image: its name, and what it kept before.
func metricsOf(row clientdb.Row, rec record) string {
	m := map[string]any{"type": "container"}
	for key, value := range rec.Labels {
		m[key] = value
	}
	_ = json.Unmarshal(rec.Metrics, &m) // else the labels are all there is
	maps.Copy(m, map[string]any{
		"collection": row.Collection, "image": row.Name, "tag": row.Tag, "version": row.Version, "uri": row.URI,
		"url": row.Collection + "/" + row.Name, "storage": fmt.Sprintf("%s/%s:%s.sif", row.Collection, row.Name, row.Tag),
	})
	text, err := json.Marshal(m)
	if err != nil {
		return "{}"
	}
	return string(text)
}

// MoveOut implements backends.Recorder. The record comes first: broken off anywhere, the
// image has its name, in the one place or the other.
func (c *client) MoveOut(ctx context.Context, img backends.Image, to string) (moved backends.Image, err error) {
	ref := img.Ref
	ref.Version = ""
	err = c.locked(ctx, func(t *tree) error {
		from, rec, err := t.fileOf(ctx, img)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
			if err == nil {
				err = backends.Saying(fs.ErrExist, "%s exists", to)
			}
			return localError(err)
		}
		rec.Path = to
		own, err := t.records.own(t.records.file(ref.Collection, ref.Name))
		if err == nil {
			err = t.records.put(ctx, ref, rec, from)
		}
		if err != nil {
			return err
		}
		if err := moveFile(ctx, from, to); err != nil {
			return errors.Join(localError(err), t.records.save(ref.Collection, ref.Name, own))
		}
		if rel, err := filepath.Rel(t.path, filepath.Dir(from)); err == nil && filepath.IsLocal(rel) {
			defer t.changed(filepath.ToSlash(rel))
			_ = t.syncDir(filepath.ToSlash(rel))
			t.removeEmpty(filepath.ToSlash(rel), ".")
		}
		t.changed(".")
		if moved, err = c.statRecorded(ctx, &t.view, ref); err != nil {
			return err
		}
		moved.Digest = img.Digest
		return nil
	})
	return moved, err
}

// fileOf returns the file of an image, of the store or elsewhere, and its record.
// Errors: fs.ErrNotExist; backends.ErrChanged.
func (t *tree) fileOf(ctx context.Context, img backends.Image) (string, record, error) {
	ref := img.Ref
	ref.Version = ""
	files, err := t.versions(ref)
	if err != nil {
		return "", record{}, err
	}
	if len(files) > 0 {
		if versionOf(files[0].info) != img.Version {
			return "", record{}, backends.ErrChanged
		}
		path := t.abs(files[0].dir, files[0].base)
		rec := record{Tag: ref.Tag, Version: files[0].ref.Version, Client: localClient, Created: files[0].info.ModTime().UTC().Truncate(time.Second)}
		for _, known := range t.records.image(ctx, ref.Collection, ref.Name) {
			if known.Path == path {
				rec = known
			}
		}
		return path, rec, nil
	}
	r, err := t.recorded(ctx, ref)
	switch {
	case err != nil:
		return "", record{}, err
	case r.version(&t.view) != img.Version:
		return "", record{}, backends.ErrChanged
	case r.info == nil:
		return "", record{}, backends.NotFound("only the URL of it is known: there is no file (sreg pull makes one)")
	}
	return r.Path, r.record, nil
}

// moveFile renames a file, or copies it to another file system and removes it here.
func moveFile(ctx context.Context, from, to string) error {
	err := os.Rename(from, to)
	if err == nil {
		return disk.SyncDir(filepath.Dir(to))
	}
	if errno, ok := backends.LocalErrno(err); !ok || errno != syscall.EXDEV {
		return err
	}
	in, err := backends.OpenRegular(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := disk.Create(to, disk.Replacement{Perm: info.Mode().Perm()})
	if err != nil {
		return err
	}
	if _, err := io.Copy(&progress{ctx: ctx, Writer: out}, in); err != nil {
		return errors.Join(err, out.Abort())
	}
	if err := out.Commit(); err != nil {
		return err
	}
	return errors.Join(os.Chtimes(to, info.ModTime(), info.ModTime()), os.Remove(from))
}

// Import implements backends.Recorder: one step for each row of the database.
func (c *client) Import(ctx context.Context, dry bool) iter.Seq2[backends.Imported, error] {
	return func(yield func(backends.Imported, error) bool) {
		if c.records.db == nil {
			yield(backends.Imported{}, fmt.Errorf("%w: the database of sregistry is not looked at (local_sregistry_database is off)", fs.ErrInvalid))
			return
		}
		var order []backends.Ref
		rows := map[backends.Ref][]clientdb.Row{} // of an image, the newest first
		var lost error
		for row, err := range c.records.db.All(ctx) {
			if lost = err; err != nil {
				break // what can be read came before
			}
			of := backends.Ref{Collection: row.Collection, Name: row.Name}
			if rows[of] == nil {
				order = append(order, of)
			}
			rows[of] = append([]clientdb.Row{row}, rows[of]...)
		}
		for _, of := range order {
			steps, err := c.importImage(ctx, of, rows[of], dry)
			if err != nil {
				yield(backends.Imported{}, err)
				return
			}
			for _, s := range steps {
				if !yield(s, nil) {
					return
				}
			}
		}
		if lost != nil {
			yield(backends.Imported{}, lost)
		}
	}
}

// importImage takes over the rows of one image. What we have of it already stays as it is.
func (c *client) importImage(ctx context.Context, of backends.Ref, rows []clientdb.Row, dry bool) (steps []backends.Imported, err error) {
	do := func(own []record) []record {
		left := merge(own, rows)
		for _, row := range rows {
			rec := fromRow(row)
			ref := of
			ref.Tag = rec.Tag
			img, there := rec.there(ref)
			step := backends.Imported{Ref: img.ref, Path: rec.Path, URL: rec.URL}
			switch {
			case ref.Check() != nil, !there:
				step.What = backends.ImportMissing
			case !slices.ContainsFunc(left, func(o record) bool { return o.row == rec.row }):
				step.What = backends.ImportKnown
			case rec.Path == "":
				step.What = backends.ImportURL
			case strings.HasPrefix(rec.Path, c.path+string(filepath.Separator)):
				step.What = backends.ImportFile
			default:
				step.What = backends.ImportElsewhere
			}
			if step.What != backends.ImportMissing && step.What != backends.ImportKnown {
				own = append(own, rec)
			}
			steps = append(steps, step)
		}
		return own
	}
	path := c.records.file(of.Collection, of.Name)
	if dry {
		own, err := c.records.own(path)
		do(own)
		return steps, err
	}
	err = c.locked(ctx, func(*tree) error {
		own, err := c.records.own(path)
		if err != nil {
			return err
		}
		if all := do(own); len(all) > len(own) {
			return c.records.save(of.Collection, of.Name, all)
		}
		return nil
	})
	return steps, err
}
