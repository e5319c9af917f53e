// SPDX-License-Identifier: Apache-2.0

package badger_test

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/catalogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	t.Parallel()
	catalogtest.Run(t, func(t *testing.T) catalog.Store {
		return open(t, filepath.Join(t.TempDir(), "index"))
	})
}

func open(t *testing.T, dir string) *badger.DB {
	t.Helper()
	db, err := badger.Open(dir, badger.Options{Ballast: 1 << 20})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
