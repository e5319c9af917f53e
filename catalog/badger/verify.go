// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"
	"golang.org/x/sync/errgroup"
)

// verifyTables reads all tables and compares their checksums. Badger would do
// that while it opens, but on goroutines of its own, where a block that cannot be
// decompressed or a footer that points nowhere ends the process: the
// error message of table.VerifyChecksum reads through a nil pointer.
func verifyTables(dir string) (damage, err error) {
	f, err := os.Open(filepath.Join(dir, badgerdb.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a new index: checkInventory has seen to it
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var manifest badgerdb.Manifest
	err = contained(func() (err error) {
		var n int64
		manifest, n, err = badgerdb.ReplayManifestFile(f, 0, badgerdb.DefaultOptions(dir).WithLogger(nil))
		if err == nil && n != info.Size() {
			err = errors.New("it is cut off")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("its list of tables is damaged: %w", err), nil
	}
	var all errgroup.Group
	all.SetLimit(runtime.GOMAXPROCS(0))
	for id, facts := range manifest.Tables {
		all.Go(func() error {
			return contained(func() error { return verifyTable(table.NewFilename(id, dir), facts) })
		})
	}
	if damage = all.Wait(); damage != nil {
		err = openable(dir)
	}
	if err != nil {
		damage = nil // it is us who cannot read them
	}
	return damage, err
}

func verifyTable(path string, facts badgerdb.TableManifest) (err error) {
	m, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(-1)) }()
	// Not OnTableRead: then OpenTable closes the map of a wrong table, and
	// nothing tells whether it did.
	t, err := table.OpenTable(m, table.Options{
		ReadOnly:    true,
		Compression: facts.Compression,
		BlockSize:   blockSize,
		ChkMode:     options.NoVerification,
	})
	if err != nil {
		return err
	}
	return t.VerifyChecksum()
}
