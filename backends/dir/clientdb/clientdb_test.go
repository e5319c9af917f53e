// SPDX-License-Identifier: Apache-2.0

package clientdb_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sregfs/sregfs/backends/dir/clientdb"
	"github.com/sregfs/sregfs/backends/dir/clientdb/clientdbtest"
)

func all(t *testing.T, db *clientdb.DB) ([]string, error) {
	t.Helper()
	var names []string
	for r, err := range db.All(t.Context()) {
		if err != nil {
			return names, err
		}
		names = append(names, r.Collection+"/"+r.Name+":"+r.Tag)
	}
	return names, nil
}

// Databases of all versions tell the same, by whichever way they are asked.
func TestVersions(t *testing.T) {
	t.Parallel()
	for _, version := range clientdbtest.Versions() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			path, err := clientdbtest.Make(version, root, "", []byte("image"))
			if err != nil {
				t.Fatal(err)
			}
			db := clientdb.New(path)
			defer db.Close()
			want := []string{"vsoch/hello-world:1.0", "vsoch/moved:v2", "library/ubuntu:latest", "vsoch/by-url:3"}
			got, err := all(t, db)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("all (-want +got): %s%v", diff, err)
			}
			if got, err := db.Collections(t.Context()); !slices.Equal(got, []string{"library", "vsoch"}) || err != nil {
				t.Errorf("collections: %v %v", got, err)
			}
			rows, err := db.Image(t.Context(), "vsoch", "by-url")
			if err != nil || len(rows) != 1 {
				t.Fatalf("by-url: %v %v", rows, err)
			}
			r := rows[0]
			if r.Image != "" || r.URL != "http://127.0.0.1:1/by-url.simg" || r.Client != "hub" || r.Version != strings.Repeat("0123456789abcdef", 2) || r.Created.Year() != 2026 {
				t.Errorf("by-url: %+v", r)
			}
			if entries, err := os.ReadDir(filepath.Dir(path)); len(entries) != 1 || err != nil {
				t.Errorf("reading left files behind: %v %v", entries, err)
			}
		})
	}
}

func TestNone(t *testing.T) {
	t.Parallel()
	db := clientdb.New(filepath.Join(t.TempDir(), "none", "sregistry.db"))
	if got, err := all(t, db); got != nil || err != nil {
		t.Errorf("%v %v", got, err)
	}
	if _, err := os.Stat(filepath.Dir(db.Path())); !errors.Is(err, fs.ErrNotExist) {
		t.Error("reading made a directory")
	}
}

func TestNotReadable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sregistry.db")
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := all(t, clientdb.New(path)); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
}

// many makes a database with n images of one collection.
func many(t *testing.T, n int) string {
	t.Helper()
	path, err := clientdbtest.Make("0.2.39", t.TempDir(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = clientdb.New(path).Update(t.Context(), func(tx *clientdb.Tx) error {
		for i := range n {
			err := tx.Put(clientdb.Row{Collection: "many", Name: fmt.Sprintf("image%d", i), Tag: "latest", Client: "hub", Metrics: "{}",
				Image: "/nowhere/" + strings.Repeat("x", 200), URI: fmt.Sprintf("many/image%d:latest@v", i), Created: time.Unix(1, 0)})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Of a damaged database the rest can be read, and it is said what cannot.
func TestDamaged(t *testing.T) {
	t.Parallel()
	const n = 3000
	path := many(t, n)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		damage func([]byte) []byte
		least  int
		says   string
	}{
		"a page in the middle": {func(b []byte) []byte { copy(b[len(b)/2/4096*4096:], make([]byte, 4096)); return b }, n - 100, "rows "},
		"cut off":              {func(b []byte) []byte { return b[:len(b)*3/4/4096*4096] }, n / 4, "from"},
		"not a database":       {func([]byte) []byte { return []byte(strings.Repeat("no database ", 1000)) }, 0, "nothing of it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := filepath.Join(t.TempDir(), "sregistry.db")
			if err := os.WriteFile(bad, tt.damage(slices.Clone(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
			db := clientdb.New(bad)
			defer db.Close()
			got, err := all(t, db)
			if !errors.Is(err, clientdb.ErrDamaged) || !strings.Contains(err.Error(), tt.says) || len(got) < tt.least {
				t.Errorf("%d images and %v, want at least %d and %q", len(got), err, tt.least, tt.says)
			}
			if len(got) > 0 {
				if rows, _ := db.Image(t.Context(), "vsoch", "moved"); len(rows) != 1 {
					t.Errorf("one image: %v", rows)
				}
			}
		})
	}
}

// A client that was killed while it wrote leaves a journal. It is not ours to put right:
// what was there before is read all the same.
func TestLeftHalfway(t *testing.T) {
	t.Parallel()
	path := many(t, 10)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"-journal", hotJournal(before), 0o600); err != nil {
		t.Fatal(err)
	}
	db := clientdb.New(path)
	defer db.Close()
	if got, err := all(t, db); len(got) != 14 || err != nil {
		t.Errorf("%d images, %v", len(got), err)
	}
	if after, err := os.ReadFile(path); !slices.Equal(before, after) || err != nil {
		t.Error("reading changed the file")
	}
	if _, err := os.Stat(path + "-journal"); err != nil {
		t.Error("reading removed the journal")
	}
}

// hotJournal is the journal of a transaction that had changed no page yet: its header, of
// one sector (https://www.sqlite.org/fileformat2.html#the_rollback_journal).
func hotJournal(db []byte) []byte {
	j := make([]byte, 512)
	copy(j, "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
	pages := len(db) / 4096
	copy(j[16:], []byte{byte(pages >> 24), byte(pages >> 16), byte(pages >> 8), byte(pages)})
	copy(j[20:], []byte{0, 0, 2, 0, 0, 0, 0x10, 0})
	return j
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "sregistry.db")
	db := clientdb.New(path)
	defer db.Close()
	put := clientdb.Row{Collection: "lab", Name: "tool", Tag: "1", Version: "abc", Client: "local", Image: "/x", URI: "lab/tool:1@abc", Metrics: "{}", Created: time.Unix(1_500_000_000, 0).UTC()}
	do := func(fn func(*clientdb.Tx) error) {
		t.Helper()
		if err := db.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	do(func(tx *clientdb.Tx) error { return tx.Put(put) })
	rows, err := db.Image(t.Context(), "lab", "tool")
	put.ID = 1
	if diff := cmp.Diff([]clientdb.Row{put}, rows); diff != "" || err != nil {
		t.Errorf("put (-want +got): %s%v", diff, err)
	}
	put.Image, put.Collection = "/y", "other"
	do(func(tx *clientdb.Tx) error { return tx.Put(put) })
	if rows, err = db.Image(t.Context(), "other", "tool"); len(rows) != 1 || rows[0] != put || err != nil {
		t.Errorf("changed: %v %v", rows, err)
	}
	failed := errors.New("failed")
	if err := db.Update(t.Context(), func(tx *clientdb.Tx) error { return errors.Join(tx.Delete(1), failed) }); !errors.Is(err, failed) {
		t.Errorf("a change that failed: %v", err)
	}
	if got, err := all(t, db); len(got) != 1 || err != nil {
		t.Errorf("after that: %v %v", got, err)
	}
	do(func(tx *clientdb.Tx) error { return tx.Delete(1) })
	if got, err := all(t, db); len(got) != 0 || err != nil {
		t.Errorf("deleted: %v %v", got, err)
	}
}

// Many programs at once: nobody reads that the database is locked, and nothing is lost.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	path := many(t, 0)
	const writers, each = 4, 25
	errs := make(chan error, 2*writers)
	for w := range writers {
		db := clientdb.New(path) // as if in a process of its own
		go func() {
			for i := range each {
				err := db.Update(context.WithoutCancel(t.Context()), func(tx *clientdb.Tx) error {
					return tx.Put(clientdb.Row{Collection: "lab", Name: fmt.Sprintf("tool%d-%d", w, i), Tag: "1", Client: "local", Metrics: "{}"})
				})
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- db.Close()
		}()
		go func() {
			db := clientdb.New(path)
			for range each {
				for _, err := range db.All(context.WithoutCancel(t.Context())) {
					if err != nil {
						errs <- err
						return
					}
				}
			}
			errs <- db.Close()
		}()
	}
	for range 2 * writers {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got, err := all(t, clientdb.New(path)); len(got) != 4+writers*each || err != nil {
		t.Errorf("%d images, %v", len(got), err)
	}
}
