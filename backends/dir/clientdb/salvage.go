// SPDX-License-Identifier: Apache-2.0

package clientdb

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A salvage is what could be read of a database that cannot be read as a whole. The nil
// one is that of no database.
type salvage struct {
	rows  []Row
	names map[int64]string // of collections
	lost  []string
	err   error // why nothing could be read, or why not all
}

func (s *salvage) choose(wanted func(Row) bool) []Row {
	var found []Row
	if s != nil {
		for _, r := range s.rows {
			if wanted(r) {
				found = append(found, r)
			}
		}
	}
	return found
}

func (s *salvage) collections() []string {
	var all []string
	for _, r := range s.choose(func(Row) bool { return true }) {
		all = append(all, r.Collection)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// damage says what was lost; nil if nothing was.
func (s *salvage) damage() error {
	switch {
	case s == nil:
		return nil
	case s.err != nil:
		return fmt.Errorf("%w: nothing of it can be read: %v", ErrDamaged, s.err)
	case len(s.lost) > 0:
		return fmt.Errorf("%w: of %d rows that can be read, these are missing: %s", ErrDamaged, len(s.rows), strings.Join(s.lost, ", "))
	}
	return nil
}

// saved returns what can be read of the database after a query failed with err; ok is
// false if err says nothing of damage.
func (d *DB) saved(ctx context.Context, err error) (_ *salvage, ok bool) {
	if !damaged(err) {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.salvage == nil {
		if info, err := os.Stat(d.path); err == nil {
			d.stamp = stampOf(info)
		}
		_ = d.closeLocked()
		d.salvage = d.save(ctx, err)
	}
	return d.salvage, true
}

// save reads what can be read out of a copy: SQLite puts right there what a client left
// half-way, which it may not do in the file itself.
func (d *DB) save(ctx context.Context, why error) *salvage {
	s := &salvage{names: map[int64]string{}}
	dir, err := os.MkdirTemp("", "sregistry-db-")
	if err != nil {
		return &salvage{err: err}
	}
	defer os.RemoveAll(dir)
	at := filepath.Join(dir, FileName)
	for _, suffix := range []string{"", "-journal", "-wal"} {
		if err := copyFile(at+suffix, d.path+suffix); err != nil && (suffix == "" || !errors.Is(err, fs.ErrNotExist)) {
			return &salvage{err: err}
		}
	}
	if err := pad(at); err != nil {
		return &salvage{err: errors.Join(why, err)}
	}
	db, columns, err := openFile(ctx, at, "mode=rw")
	if err != nil {
		return &salvage{err: errors.Join(why, err)}
	}
	defer db.Close()
	s.read(ctx, db, columns)
	if len(s.rows) == 0 && s.err == nil && len(s.lost) > 0 {
		s.err = why
	}
	return s
}

func (s *salvage) read(ctx context.Context, db *sql.DB, columns string) {
	t := table{db: db, query: "SELECT i.id, COALESCE(CAST(i.name AS TEXT), '') FROM collection i", one: func(rows *sql.Rows) (id int64, err error) {
		var name string
		if err = rows.Scan(&id, &name); err == nil {
			s.names[id] = name
		}
		return id, err
	}}
	_ = t.read(ctx) // a name that is lost is in the URI, too
	t = table{db: db, what: "rows", query: "SELECT " + columns + ", i.collection_id FROM container i", one: func(rows *sql.Rows) (int64, error) {
		var r Row
		var in int64
		if err := r.scan(rows, &in); err != nil {
			return r.ID, err
		}
		if r.Collection = s.names[in]; r.Collection == "" {
			r.Collection = collectionOf(r.URI)
		}
		if r.Collection == "" {
			s.lost = append(s.lost, fmt.Sprintf("row %d (nothing says in which collection %q is)", r.ID, r.Name))
		} else {
			s.rows = append(s.rows, r)
		}
		return r.ID, nil
	}}
	s.err = t.read(ctx)
	s.lost = append(s.lost, t.lost...)
}

// collectionOf returns what a URI of the client says; "" if nothing.
func collectionOf(uri string) string {
	path, _, _ := strings.Cut(uri, "@")
	parts := strings.Split(path, "/")
	if len(parts) < 2 {
		return ""
	}
	return parts[len(parts)-2]
}

// A table is read in the order of its ids, around what cannot be read.
type table struct {
	db    *sql.DB
	what  string
	query string
	one   func(*sql.Rows) (id int64, err error)
	last  int64 // id that was read last
	lost  []string
}

// mostLost is after how many ids in a row that cannot be read it is given up: nobody can
// tell any more which of them there were.
const mostLost = 5000

func (t *table) read(ctx context.Context) error {
	for {
		err := t.some(ctx, " WHERE i.id > ? ORDER BY i.id", t.last)
		switch {
		case err == nil, ctx.Err() != nil:
			return err
		case !damaged(err):
			return err
		}
		from, ended := t.last+1, false
		if ended, err = t.skip(ctx); err != nil {
			return err
		}
		switch {
		case ended:
			t.lost = append(t.lost, fmt.Sprintf("%s from %d on", t.what, from))
			return nil
		case t.last > from:
			t.lost = append(t.lost, fmt.Sprintf("%s %d to %d", t.what, from, t.last-1))
		}
	}
}

// skip goes on to the next id that can be read, and reads that; ended is true if there is
// none.
func (t *table) skip(ctx context.Context) (ended bool, err error) {
	for id := t.last + 1; id <= t.last+mostLost; id++ {
		before := t.last
		err := t.some(ctx, " WHERE i.id = ?", id)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err == nil && t.last > before:
			return false, nil
		}
	}
	return true, nil
}

func (t *table) some(ctx context.Context, where string, id int64) error {
	rows, err := t.db.QueryContext(ctx, t.query+where, id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		id, err := t.one(rows)
		if err != nil {
			return err
		}
		t.last = id
	}
	return rows.Err()
}

// pad makes a file that was cut off as long as its header says: SQLite opens no shorter one
// (https://www.sqlite.org/fileformat2.html, 1.3).
func pad(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var head [32]byte
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return err
	}
	size := int64(binary.BigEndian.Uint16(head[16:])) * int64(binary.BigEndian.Uint32(head[28:]))
	if size <= info.Size() || size > mostPadded {
		return nil
	}
	return f.Truncate(size)
}

// mostPadded is the size in bytes beyond which the header is not believed.
const mostPadded = 4 << 30

// copyFile copies a regular file into a new one.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
