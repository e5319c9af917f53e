// SPDX-License-Identifier: Apache-2.0

// Package clientdbtest makes databases and stores as versions of the sregistry client left
// them: testdata has the dumps of real ones. Each added three images, moved one of them
// elsewhere, and recorded one by its URL. Start at [Make].
package clientdbtest

import (
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "modernc.org/sqlite" // the driver
)

//go:embed testdata/*.sql
var dumps embed.FS

// Versions returns the names of the versions there are.
func Versions() []string {
	all, err := fs.Glob(dumps, "testdata/*.sql")
	if err != nil {
		panic(err)
	}
	for i, name := range all {
		all[i] = strings.TrimSuffix(filepath.Base(name), ".sql")
	}
	return all
}

// Make makes root/db/sregistry.db as a version left it, and the files that it names in
// root/store and root/elsewhere, all with the bytes image. url is where the image
// vsoch/by-url:3 is; "" for where nothing is.
func Make(version, root, url string, image []byte) (path string, err error) {
	dump, err := dumps.ReadFile("testdata/" + version + ".sql")
	if err != nil {
		return "", err
	}
	text := strings.ReplaceAll(string(dump), "@ROOT@", root)
	if url != "" {
		text = strings.ReplaceAll(text, "http://127.0.0.1:1/by-url.simg", url)
	}
	path = filepath.Join(root, "db", "sregistry.db")
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return "", err
	}
	files, err := load(path, text)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if err := os.MkdirAll(filepath.Dir(f), 0o777); err != nil {
			return "", err
		}
		if err := os.WriteFile(f, image, 0o666); err != nil {
			return "", err
		}
	}
	return path, nil
}

func load(path, text string) (files []string, err error) {
	err = Exec(path, text)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows, err := db.Query("SELECT image FROM container WHERE image IS NOT NULL")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var f string
		if err := rows.Scan(&f); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	slices.Sort(files)
	return files, rows.Err()
}

// Exec runs SQL on a database, which is made if need be.
func Exec(path, text string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(text); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
