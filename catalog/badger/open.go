// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"github.com/sregfs/sregfs/backends/disk"
)

// Open opens the index in dir, which is made if it is missing (0700). An index
// that is damaged, or at whose opening the last process died, is moved aside and
// an empty one takes its place: Damage tells. On a disk too full to open the
// index safely the DB is empty and takes no changes, until there is room.
//
// Errors: ErrInUse; ErrNetwork; those of the local disk.
func Open(dir string, opts Options) (*DB, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := CheckDir(dir); err != nil {
		return nil, err
	}
	lock, err := lockFile(dir + ".lock")
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", dir, err)
	}
	d := &DB{
		dir:     dir,
		log:     opts.Log,
		lock:    lock,
		guard:   newGuard(dir, opts),
		settled: opts.Settled,
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	d.idle.L = &d.mu
	if err := d.guard.makeRoom(); err != nil {
		d.log.Warn("index stays closed until there is room", "err", err)
	} else if d.db, d.damage, err = openIndex(dir, opts.Log); err != nil {
		return nil, errors.Join(err, unlock(lock))
	}
	go d.watch() // ends at Close, which waits for it
	return d, nil
}

// watch looks at the disk each second, and opens the index once there is room
// if there was none at Open. It tells when writes have come to rest.
func (d *DB) watch() {
	defer close(d.stopped)
	d.guard.tick()
	var rest rest
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-second.C:
		}
		d.guard.tick()
		if rest.tick(d.written.Load()) && d.settled != nil {
			d.settled()
		}
		if d.db == nil && d.broken == nil && d.guard.makeRoom() == nil {
			db, _, err := openIndex(d.dir, d.log)
			d.mu.Lock()
			d.db, d.broken = db, err
			d.mu.Unlock()
			d.log.Info("index opened late", "dir", d.dir, "err", err)
		}
	}
}

// openIndex opens what is in dir, or if that is damaged something empty.
func openIndex(dir string, log *slog.Logger) (db *badgerdb.DB, damage, err error) {
	// Before anything is marked: Badger panics where it can open no more files.
	if err := openable(dir); err != nil {
		return nil, nil, err
	}
	damage, err = inspect(dir)
	if err != nil {
		return nil, nil, err
	}
	if damage == nil {
		if db, damage, err = tryOpen(dir, log); err != nil || damage == nil {
			return db, nil, err
		}
	}
	aside, err := setAside(dir)
	if err != nil {
		return nil, nil, err
	}
	damage = fmt.Errorf("%w (kept as %s)", damage, aside)
	log.Warn("index begins anew, for it was damaged", "dir", dir, "damage", damage)
	db, again, err := tryOpen(dir, log)
	if again != nil {
		err = fmt.Errorf("empty index %s: %w", dir, again)
	}
	return db, damage, err
}

// inspect looks for damage that Badger would not notice, or not survive.
func inspect(dir string) (damage, err error) {
	switch _, err := os.Lstat(dir + markSuffix); {
	case err == nil:
		return errors.New("the process died while it opened the index"), nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if damage, err := checkInventory(dir); damage != nil || err != nil {
		return damage, err
	}
	return verifyTables(dir)
}

// tryOpen opens what is in dir, with a mark beside it for as long as that
// takes: Badger opens tables on goroutines of its own, where a panic or a fault
// ends the process.
func tryOpen(dir string, log *slog.Logger) (db *badgerdb.DB, damage, err error) {
	if err := awaitBadger(dir); err != nil {
		return nil, nil, err
	}
	if err := mark(dir); err != nil {
		return nil, nil, err
	}
	damage = contained(func() (err error) {
		db, err = badgerdb.Open(settings(dir, log))
		return err
	})
	if damage != nil {
		// Badger hides the errno: was it us who could not open files?
		err = openable(dir)
		db = nil
	}
	if damage != nil && err != nil {
		damage = nil
	}
	return db, damage, errors.Join(err, os.Remove(dir+markSuffix))
}

// settings keep a process with a million records small: decision 22 has what was
// measured.
func settings(dir string, log *slog.Logger) badgerdb.Options {
	s := badgerdb.DefaultOptions(dir).
		WithSyncWrites(false). // 50 times as fast; kill -9 loses nothing, a power cut the last of it
		// Compactions hold up to ten builders of twice the table size, and keep them.
		WithBaseTableSize(1 << 20).
		WithMemTableSize(memTableSize).WithNumMemtables(numMemTables).
		WithNumLevelZeroTables(2).WithNumLevelZeroTablesStall(4).
		WithValueThreshold(1 << 20). // beyond index.MaxValue: the value log stays empty
		WithValueLogFileSize(16 << 20).
		// Blocks are read where the system maps them: a copy of ours, unpacked, costs
		// more memory than packing saves, and twice the time.
		WithCompression(options.None).WithBlockCacheSize(0).WithIndexCacheSize(0).
		WithNumCompactors(2).WithCompactL0OnClose(true).
		WithBlockSize(blockSize).
		// verifyTables has done it. OnBlockRead turns a flipped bit into missing keys,
		// and both OnTableRead and OnTableAndBlockRead panic at some of them.
		WithChecksumVerificationMode(options.NoVerification).
		WithVerifyValueChecksum(true).
		WithDetectConflicts(false). // no transaction of ours reads before it writes
		WithMetricsEnabled(false).
		WithLogger(logger{log})
	s.TableSizeMultiplier = 1 // the tables of deep levels are no larger
	return s
}

const (
	memTableSize = 8 << 20
	numMemTables = 2
	blockSize    = 4 << 10
	markSuffix   = ".opening"
	asideSuffix  = ".bad-"
)

// mark puts a file beside the index that says: begin anew if you find me. It
// takes the inventory's place, which is void from now on.
func mark(dir string) error {
	err := os.Rename(dir+inventorySuffix, dir+markSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		var f *os.File
		if f, err = os.OpenFile(dir+markSuffix, os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(dir))
}

// setAside moves the index away, whole, and returns where it is. One such is
// kept at a time.
func setAside(dir string) (string, error) {
	if err := dropAsides(dir); err != nil {
		return "", err
	}
	to := dir + asideSuffix + time.Now().UTC().Format("20060102T150405")
	if err := os.Rename(dir, to); err != nil {
		return "", err
	}
	for _, suffix := range []string{inventorySuffix, markSuffix} {
		if err := os.Remove(dir + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return to, os.Mkdir(dir, 0o700)
}

func dropAsides(dir string) error {
	entries, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(dir)+asideSuffix) {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(dir), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// spareFiles is how many more files than the index has Badger opens.
const spareFiles = 32

// openable tells why the files of the index cannot all be open at once, as Badger
// wants them: permissions, or a low limit (EMFILE), are no damage.
func openable(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	paths := slices.Repeat([]string{dir}, spareFiles)
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, e.Name()))
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if errors.Is(err, syscall.EMFILE) {
			return fmt.Errorf("%w: the index takes %d, raise the limit (ulimit -n)", err, len(paths))
		}
		if err != nil {
			return err
		}
		defer f.Close()
	}
	return nil
}
