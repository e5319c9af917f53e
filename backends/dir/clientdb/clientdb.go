// SPDX-License-Identifier: Apache-2.0

// Package clientdb reads and writes the database of the sregistry client
// (singularityhub/sregistry-cli), of any version since 2017: sregistry.db, one
// SQLite file with a row for each image that the client added, pulled or recorded.
//
// Reading changes nothing, not even where the client was killed half-way. The file is
// locked as the client's own library locks it, always for a moment only, so that both
// may be used at once. A damaged file gives the rows that can be read.
//
// It is the only package that knows SQLite. Start at [New].
package clientdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/sregfs/sregfs/backends"
)

// FileName is the database's in the directory that SREGISTRY_DATABASE names.
const FileName = "sregistry.db"

// A Row is one image as the client knows it. What the database does not say is empty.
type Row struct {
	ID         int64
	Collection string
	Name, Tag  string
	Version    string // MD5 or SHA-256 in hexadecimal, or what a service said
	Client     string // the kind of service that it is from
	Image      string // path of the file
	URL        string // where it was pulled from
	URI        string // as this version of the client spelled it
	Metrics    string // JSON
	Created    time.Time
}

// ErrDamaged means that a part of the database cannot be read.
var ErrDamaged = errors.New("the database is damaged")

// A DB is a database, which need not exist. Methods may be called from many goroutines
// at once. Errors of all of them: those of the local disk; fs.ErrPermission; ctx's.
type DB struct {
	path string

	mu      sync.Mutex // guards the fields below
	open    *sql.DB
	columns string
	stamp   stamp // of the file that open has
	salvage *salvage
}

// New returns the database at path. It reads nothing.
func New(path string) *DB { return &DB{path: path} }

// Path returns the name of its file.
func (d *DB) Path() string { return d.path }

// Close releases the file.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closeLocked()
}

func (d *DB) closeLocked() error {
	open := d.open
	d.open, d.salvage = nil, nil
	if open == nil {
		return nil
	}
	return open.Close()
}

// A stamp tells one state of the file from others.
type stamp struct {
	info    fs.FileInfo
	size    int64
	changed time.Time
}

func stampOf(info fs.FileInfo) stamp { return stamp{info, info.Size(), info.ModTime()} }

func (s stamp) sameFile(o stamp) bool { return s.info != nil && os.SameFile(s.info, o.info) }

func (s stamp) same(o stamp) bool {
	return s.sameFile(o) && s.size == o.size && s.changed.Equal(o.changed)
}

// Image returns the rows of one image, of all tags and versions, the newest first. No
// database has none.
func (d *DB) Image(ctx context.Context, collection, name string) ([]Row, error) {
	return d.rows(ctx, " WHERE c.name = ? AND i.name = ? ORDER BY i.id DESC", []any{collection, name}, func(r Row) bool {
		return r.Collection == collection && r.Name == name
	})
}

// batch is how many rows are read before others get their turn.
const batch = 2000

// Collection yields the rows of a collection, the oldest first. What is in a damaged
// database and can be read comes before the error.
//
// Errors: ErrDamaged, with what was lost.
func (d *DB) Collection(ctx context.Context, name string) iter.Seq2[Row, error] {
	return d.each(ctx, " AND c.name = ?", []any{name}, func(r Row) bool { return r.Collection == name })
}

// All is Collection for all of them.
func (d *DB) All(ctx context.Context) iter.Seq2[Row, error] {
	return d.each(ctx, "", nil, func(Row) bool { return true })
}

func (d *DB) each(ctx context.Context, where string, args []any, wanted func(Row) bool) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		var last int64
		for {
			found, err := d.rows(ctx, " WHERE i.id > ?"+where+fmt.Sprintf(" ORDER BY i.id LIMIT %d", batch), append([]any{last}, args...), func(r Row) bool {
				return r.ID > last && wanted(r)
			})
			for _, r := range found {
				if last = r.ID; !yield(r, nil) {
					return
				}
			}
			if err != nil {
				yield(Row{}, err)
				return
			}
			if len(found) < batch {
				return
			}
		}
	}
}

// Collections returns the names of all collections, in order.
func (d *DB) Collections(ctx context.Context) ([]string, error) {
	db, saved, err := d.reader(ctx)
	if db == nil || err != nil {
		return saved.collections(), errors.Join(err, saved.damage())
	}
	rows, err := db.QueryContext(ctx, "SELECT CAST(name AS TEXT) FROM collection WHERE name <> ''")
	var names []string
	if err == nil {
		names, err = collect(rows, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) })
	}
	if saved, ok := d.saved(ctx, err); ok {
		return saved.collections(), saved.damage()
	}
	slices.Sort(names)
	return slices.Compact(names), d.failed("read", err)
}

// rows returns those of a query, or the ones wanted of what can be read of a damaged
// database, with ErrDamaged.
func (d *DB) rows(ctx context.Context, where string, args []any, wanted func(Row) bool) ([]Row, error) {
	db, saved, err := d.reader(ctx)
	if db == nil || err != nil {
		return saved.choose(wanted), errors.Join(err, saved.damage())
	}
	found, err := query(ctx, db, d.columns, where, args)
	if saved, ok := d.saved(ctx, err); ok {
		return saved.choose(wanted), saved.damage()
	}
	return found, d.failed("read", err)
}

func query(ctx context.Context, db *sql.DB, columns, where string, args []any) ([]Row, error) {
	rows, err := db.QueryContext(ctx, "SELECT "+columns+", CAST(c.name AS TEXT) FROM container i JOIN collection c ON c.id = i.collection_id"+where, args...) //nolint:gosec // columns and where are constants of ours
	if err != nil {
		return nil, err
	}
	return collect(rows, func(rows *sql.Rows) (r Row, err error) {
		return r, r.scan(rows, &r.Collection)
	})
}

// collect reads all rows and closes them.
func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) (all []T, err error) {
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

// fields are the columns that Row has, of which early versions lack some.
var fields = []string{"id", "name", "tag", "version", "client", "image", "url", "uri", "metrics", "created_at"}

// scan reads what was selected as d.columns says, and more.
func (r *Row) scan(rows *sql.Rows, more ...any) error {
	var created string
	to := []any{&r.ID, &r.Name, &r.Tag, &r.Version, &r.Client, &r.Image, &r.URL, &r.URI, &r.Metrics, &created}
	if err := rows.Scan(append(to, more...)...); err != nil {
		return err
	}
	r.Created = parseTime(created)
	return nil
}

const timeLayout = "2006-01-02 15:04:05"

// parseTime reads what SQLite writes for now, in UTC, with or without a fraction.
func parseTime(text string) time.Time {
	t, err := time.Parse(timeLayout, strings.Replace(text, "T", " ", 1))
	if err != nil {
		return time.Time{}
	}
	return t
}

// reader returns the database open for reading, or what was saved of a damaged one; both
// are nothing if there is no database.
func (d *DB) reader(ctx context.Context) (*sql.DB, *salvage, error) {
	info, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return nil, nil, nil
	}
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: it is no regular file", fs.ErrInvalid)
	}
	if err != nil {
		return nil, nil, d.failed("read", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := stampOf(info)
	switch {
	case d.salvage != nil && d.stamp.same(now):
		return nil, d.salvage, nil
	case d.open != nil && d.salvage == nil && d.stamp.sameFile(now):
		return d.open, nil, nil
	}
	if err := d.closeLocked(); err != nil {
		return nil, nil, d.failed("read", err)
	}
	d.stamp = now
	open, columns, err := openFile(ctx, d.path, "mode=ro&_pragma=query_only(1)")
	switch {
	case damaged(err):
		d.salvage = d.save(ctx, err)
		return nil, d.salvage, nil
	case err != nil:
		return nil, nil, d.failed("read", err)
	}
	d.open, d.columns = open, columns
	return open, nil, nil
}

// lockWait is how long another program may have the database for itself.
const lockWait = 30 * time.Second

// openFile opens a database, and returns how the columns of a Row are selected from it.
func openFile(ctx context.Context, path, options string) (db *sql.DB, columns string, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, "", err
	}
	name := (&url.URL{Path: filepath.ToSlash(abs)}).EscapedPath()
	db, err = sql.Open("sqlite", fmt.Sprintf("file:%s?%s&_pragma=busy_timeout(%d)", name, options, lockWait.Milliseconds()))
	if err != nil {
		return nil, "", err
	}
	db.SetMaxOpenConns(1)
	if columns, err = columnsOf(ctx, db); err != nil {
		return nil, "", errors.Join(err, db.Close())
	}
	return db, columns, nil
}

// columnsOf returns the list of a SELECT; "" where there is no such table.
func columnsOf(ctx context.Context, db *sql.DB) (string, error) {
	rows, err := db.QueryContext(ctx, "SELECT name FROM pragma_table_info('container')")
	if err != nil {
		return "", err
	}
	has, err := collect(rows, func(rows *sql.Rows) (name string, err error) { return name, rows.Scan(&name) })
	if err != nil {
		return "", err
	}
	var all []string
	for _, f := range fields {
		switch {
		case !slices.Contains(has, f):
			all = append(all, "''")
		case f == "id":
			all = append(all, "i.id")
		default:
			all = append(all, "COALESCE(CAST(i."+f+" AS TEXT), '')")
		}
	}
	return strings.Join(all, ", "), nil
}

// failed says what was done to which file, and with which sentinel it failed.
func (d *DB) failed(op string, err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case ok && e.Code()&0xff == lib.SQLITE_CANTOPEN, ok && e.Code()&0xff == lib.SQLITE_PERM, ok && e.Code()&0xff == lib.SQLITE_READONLY,
		errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: %v", fs.ErrPermission, err)
	case ok && e.Code()&0xff == lib.SQLITE_FULL:
		err = fmt.Errorf("%w: %v", syscall.ENOSPC, err)
	case ok && e.Code()&0xff == lib.SQLITE_BUSY:
		err = fmt.Errorf("%w: another program has kept it for %v", backends.ErrUnavailable, lockWait)
	}
	return fmt.Errorf("%s the database of sregistry, %s: %w", op, d.path, err)
}

// damaged reports whether an error says that the file is not as it should be: damaged, no
// database at all, or left half-way by a client that was killed.
func damaged(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff {
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB, lib.SQLITE_IOERR:
		return true
	}
	return e.Code() == lib.SQLITE_READONLY_ROLLBACK || e.Code() == lib.SQLITE_READONLY_RECOVERY || strings.Contains(e.Error(), "malformed") ||
		strings.Contains(e.Error(), "no such table")
}
