// SPDX-License-Identifier: Apache-2.0

package clientdb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// schema is what the client makes, word for word: it looks at nothing but the names, but
// tools of others may.
const schema = `
CREATE TABLE IF NOT EXISTS collection (
	id INTEGER NOT NULL, 
	name VARCHAR(150), 
	token VARCHAR(50), 
	created_at DATETIME, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
CREATE TABLE IF NOT EXISTS container (
	id INTEGER NOT NULL, 
	created_at DATETIME, 
	metrics TEXT NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	tag VARCHAR(250) NOT NULL, 
	image VARCHAR(250), 
	url VARCHAR(500), 
	uri VARCHAR(500), 
	client VARCHAR(50) NOT NULL, 
	version VARCHAR(250), 
	collection_id INTEGER NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT _container_uc UNIQUE (collection_id, name, tag, client, version), 
	FOREIGN KEY(collection_id) REFERENCES collection (id)
);`

// A Tx is one change of the database, which others see as a whole.
type Tx struct {
	ctx     context.Context //nolint:containedctx // it lasts as long as one call of Update
	tx      *sql.Tx
	columns string
}

// Update calls fn with the database locked for writing, which is made if there is none.
// What fn did is undone if it fails.
//
// Errors: fn's; ErrDamaged; backends.ErrUnavailable if another program has kept it locked.
func (d *DB) Update(ctx context.Context, fn func(*Tx) error) (err error) {
	d.mu.Lock() // a file that save closes meanwhile would lose our lock
	defer d.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(d.path), 0o777); err != nil {
		return d.failed("write", err)
	}
	db, columns, err := openFile(ctx, d.path, "mode=rwc&_txlock=immediate")
	if err != nil {
		return d.notWritten(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if columns, err = complete(ctx, db, columns); err != nil {
		return d.notWritten(err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return d.notWritten(err)
	}
	if err := fn(&Tx{ctx, tx, columns}); err != nil {
		return errors.Join(d.notWritten(err), tx.Rollback())
	}
	return d.notWritten(tx.Commit())
}

// complete makes the tables if need be.
func complete(ctx context.Context, db *sql.DB, columns string) (string, error) {
	var n int
	err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('collection', 'container')").Scan(&n)
	if err != nil || n == 2 {
		return columns, err
	}
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return "", err
	}
	return columnsOf(ctx, db)
}

func (d *DB) notWritten(err error) error {
	if damaged(err) {
		return fmt.Errorf("write the database of sregistry, %s: %w: %v", d.path, ErrDamaged, err)
	}
	return d.failed("write", err)
}

// Image is DB.Image within the change.
func (t *Tx) Image(collection, name string) ([]Row, error) {
	rows, err := t.tx.QueryContext(t.ctx, "SELECT "+t.columns+", CAST(c.name AS TEXT) FROM container i JOIN collection c ON c.id = i.collection_id WHERE c.name = ? AND i.name = ? ORDER BY i.id DESC", //nolint:gosec // columns are constants of ours
		collection, name)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(rows *sql.Rows) (r Row, err error) { return r, r.scan(rows, &r.Collection) })
}

// Delete removes a row. The collection stays, as it does with the client.
func (t *Tx) Delete(id int64) error {
	_, err := t.tx.ExecContext(t.ctx, "DELETE FROM container WHERE id = ?", id)
	return err
}

// Put stores a row: that of its ID, or a new one if that is 0.
func (t *Tx) Put(r Row) error {
	in, err := t.collection(r)
	if err != nil {
		return err
	}
	if r.ID != 0 {
		_, err = t.tx.ExecContext(t.ctx, "UPDATE container SET name = ?, tag = ?, version = ?, client = ?, image = ?, url = ?, uri = ?, metrics = ?, collection_id = ? WHERE id = ?",
			r.Name, r.Tag, r.Version, r.Client, orNull(r.Image), orNull(r.URL), r.URI, r.Metrics, in, r.ID)
		return err
	}
	_, err = t.tx.ExecContext(t.ctx, "INSERT INTO container (created_at, metrics, name, tag, image, url, uri, client, version, collection_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		r.Created.UTC().Format(timeLayout), r.Metrics, r.Name, r.Tag, orNull(r.Image), orNull(r.URL), r.URI, r.Client, r.Version, in)
	return err
}

// collection returns the id of a row's collection, which is made if need be.
func (t *Tx) collection(r Row) (id int64, err error) {
	err = t.tx.QueryRowContext(t.ctx, "SELECT id FROM collection WHERE name = ?", r.Collection).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	res, err := t.tx.ExecContext(t.ctx, "INSERT INTO collection (name, token, created_at) VALUES (?, ?, ?)",
		r.Collection, token(), r.Created.UTC().Format(timeLayout))
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// token is a random UUID, as the client gives to each collection.
func token() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
