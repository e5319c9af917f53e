// SPDX-License-Identifier: Apache-2.0

package badger_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.uber.org/goleak"

	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/catalogtest"
	"github.com/sregfs/sregfs/catalog/index"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serveEnv); dir != "" {
		serve(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func TestStore(t *testing.T) {
	t.Parallel()
	catalogtest.Run(t, func(t *testing.T) index.Store {
		return open(t, filepath.Join(t.TempDir(), "index"))
	})
}

func open(t testing.TB, dir string) *badger.DB {
	t.Helper()
	db, err := badger.Open(dir, badger.Options{Ballast: 1 << 20})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// record returns pair number i in its generation gen: what is stored under
// a key can be told from what is not, and from what was. It cannot be compressed.
func record(i, gen int) index.KV {
	value := make([]byte, 300)
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(gen)}).Read(value)
	return index.KV{Key: fmt.Appendf(nil, "key/%08d", i), Value: value}
}

func records(from, to, gen int) []index.KV {
	all := make([]index.KV, 0, to-from)
	for i := from; i < to; i++ {
		all = append(all, record(i, gen))
	}
	return all
}

func TestOpen_again(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "index")
	for round := range 4 {
		db := open(t, dir)
		if err := db.Damage(); err != nil {
			t.Errorf("round %d: Damage: %v", round, err)
		}
		for i := range round {
			if got, err := db.Get(record(i, 1).Key); err != nil || string(got) != string(record(i, 1).Value) {
				t.Errorf("round %d: record %d: %q, %v", round, i, got, err)
			}
		}
		if err := db.Apply(record(round, 1)); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v, want mode 0700", dir, info.Mode(), err)
	}
}

func TestOpen_inUse(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "index")
	db := open(t, dir)
	if err := db.Apply(record(1, 1)); err != nil {
		t.Fatal(err)
	}
	if second, err := badger.Open(dir, badger.Options{}); !errors.Is(err, badger.ErrInUse) {
		t.Fatalf("Open = %v, %v, want ErrInUse", second, err)
	}
	if _, err := db.Get(record(1, 1).Key); err != nil {
		t.Errorf("the first was harmed: %v", err)
	}
}

// Values that Badger returns without complaint, but that were never stored so.
func TestGet_wrongValue(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "index")
	db := open(t, dir)
	if err := db.Apply(record(1, 1), record(2, 1), record(3, 1), record(4, 1), record(5, 1)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := badgerdb.Open(badgerdb.DefaultOptions(dir).WithLogger(nil).WithCompression(options.None))
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Update(func(txn *badgerdb.Txn) error {
		value := func(i int) []byte {
			item, err := txn.Get(append([]byte("k"), record(i, 1).Key...))
			if err != nil {
				t.Fatal(err)
			}
			v, err := item.ValueCopy(nil)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		flipped := value(1)
		flipped[len(flipped)/2] ^= 1
		for i, v := range [][]byte{1: flipped, 2: value(3), 3: value(3)[:4], 4: {}} {
			if v == nil {
				continue
			}
			if err := txn.Set(append([]byte("k"), record(i, 1).Key...), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err := errors.Join(err, raw.Close(), os.Remove(dir+".inventory")); err != nil {
		t.Fatal(err)
	}

	db = open(t, dir)
	for i := 1; i <= 4; i++ {
		if got, err := db.Get(record(i, 1).Key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("record %d: %q, %v, want fs.ErrNotExist", i, got, err)
		}
	}
	n := 0
	for pair, err := range db.Scan(nil, nil) {
		if n++; err != nil || string(pair.Key) != string(record(5, 1).Key) {
			t.Errorf("Scan gives %q, %v", pair.Key, err)
		}
	}
	if n != 1 {
		t.Errorf("Scan gives %d pairs, want 1", n)
	}
	if err := db.Apply(record(1, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Get(record(1, 2).Key); err != nil {
		t.Errorf("a damaged value cannot be replaced: %v", err)
	}
}

func TestCheckDir(t *testing.T) {
	t.Parallel()
	tmp := t.TempDir()
	if err := badger.CheckDir(tmp); err != nil {
		t.Errorf("CheckDir of a local disk: %v", err)
	}
	if err := badger.CheckDir(filepath.Join(tmp, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CheckDir of nothing: %v, want fs.ErrNotExist", err)
	}

	src, image, mnt := filepath.Join(tmp, "src"), filepath.Join(tmp, "image"), filepath.Join(tmp, "mnt")
	if err := errors.Join(os.Mkdir(src, 0o700), os.Mkdir(mnt, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mksquashfs", src, image, "-quiet", "-no-progress"}, {"squashfuse", image, mnt}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			skip(t, fmt.Sprintf("%v: %v\n%s", args, err, out))
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("fusermount3", "-u", mnt).CombinedOutput(); err != nil {
			t.Errorf("unmount: %v\n%s", err, out)
		}
	})
	err := badger.CheckDir(mnt)
	if !errors.Is(err, badger.ErrNetwork) || !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "FUSE") {
		t.Errorf("CheckDir of FUSE: %v, want ErrNetwork", err)
	}
	if db, err := badger.Open(mnt, badger.Options{}); !errors.Is(err, badger.ErrNetwork) {
		t.Errorf("Open on FUSE = %v, %v, want ErrNetwork", db, err)
	}
}

// skip skips a test that cannot run here; with SREGFS_NOSKIP=1 it fails.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("SREGFS_NOSKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}
