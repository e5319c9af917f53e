// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

const (
	defaultBallast = 64 << 20
	// The most that compactions rewrite at a time, before they delete what they
	// have read: four tables of level 0 and the level below, or a table of a deep level.
	maxCompaction = 40 << 20
	// Logs, lists and the value log's first page.
	slack = 1 << 20
)

// A guard keeps the index clear of a full disk. Badger writes through memory
// maps of sparse files, and a page for which the disk has no block ends the process.
//
// It refuses changes while what Badger does with them in the background
// (tables of level 0, compactions) might not fit any more, and it keeps a
// ballast file, to be deleted when others fill the disk nonetheless.
type guard struct {
	dir     string // of the index
	ballast string // path
	size    int64  // of the ballast, in bytes; 0: none
	log     *slog.Logger

	mu     sync.Mutex // guards the fields below
	tables int64      // bytes of all tables, as of the last look
	fresh  bool       // nothing was written since that look
	held   bool       // the ballast is there
	low    bool       // changes are refused, and the log says so
	broken error      // why the disk took no file at the last look; nil if it did
}

func newGuard(dir string, opts Options) *guard {
	g := &guard{dir: dir, ballast: dir + ".ballast", log: opts.Log}
	g.size = opts.Ballast
	if _, total, err := space(dir); g.size == 0 && err == nil {
		g.size = min(defaultBallast, total/8)
	}
	g.size = max(g.size, 0)
	info, err := os.Lstat(g.ballast)
	g.held = err == nil && info.Mode().IsRegular()
	if g.held && allocated(info) < g.size {
		// Left by a crash while it was made, or made for a smaller size.
		g.held = os.Remove(g.ballast) != nil
	}
	return g
}

// makeRoom makes sure that the index can be opened or closed: that the logs can
// become tables, and these be compacted. It gives up first an index that
// was set aside, then the ballast.
// Errors: ENOSPC; those of a disk that takes no files.
func (g *guard) makeRoom() error {
	tables, logs, err := usage(g.dir)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tables, g.fresh = tables, true
	if err := g.probe(); err != nil {
		return err
	}
	need := logs + min(tables, maxCompaction) + slack
	for _, give := range []func() error{
		func() error { return nil },
		func() error { return dropAsides(g.dir) },
		g.dropBallast,
	} {
		if err := give(); err != nil {
			return err
		}
		free, _, err := space(g.dir)
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		if err != nil {
			return err
		}
		if free >= need {
			return nil
		}
	}
	return fmt.Errorf("index %s: it takes %d MiB of free space to open or close it: %w", g.dir, need>>20+1, syscall.ENOSPC)
}

// probe makes a file as Badger will: after an error of its disk a file system is
// read-only, and does not say so to everybody who asks. Called with g.mu held.
func (g *guard) probe() error {
	path := g.dir + ".probe"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(path))
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = nil // what is free says more
	}
	if err != nil && g.broken == nil {
		g.log.Error("the disk of the index takes no files: the index takes no changes", "dir", g.dir, "err", err)
	}
	g.broken = err
	return err
}

// admit says whether changes of size bytes may be made.
// Errors: ENOSPC; those of a disk that takes no files.
func (g *guard) admit(size int64) error {
	free, _, err := space(g.dir)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fresh = false
	if g.broken != nil {
		return fmt.Errorf("index %s: %w", g.dir, g.broken)
	}
	need := g.reserve() + 2*size // once in the log, once in a table
	if !g.held {
		need += g.size
	}
	if free >= need {
		g.low = false
		return nil
	}
	if !g.low {
		g.low = true
		g.log.Warn("disk is nearly full: the index takes no changes", "dir", g.dir, "free", free, "needed", need)
	}
	return fmt.Errorf("index %s: %d MiB free, %d kept clear: %w", g.dir, free>>20, need>>20, syscall.ENOSPC)
}

// reserve returns how many bytes Badger may need for what it has accepted.
// Called with g.mu held.
func (g *guard) reserve() int64 {
	return (numMemTables+1)*memTableSize + min(g.tables, maxCompaction) + slack
}

// tick is called once a second: it gives up the ballast or makes it again.
func (g *guard) tick() {
	free, _, err := space(g.dir)
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.fresh {
		if tables, _, err := usage(g.dir); err == nil {
			g.tables, g.fresh = tables, true
		}
		_ = g.probe() // admit tells
	} else if g.broken != nil {
		_ = g.probe()
	}
	switch need := g.reserve(); {
	case g.held && free < need/2:
		g.log.Warn("disk is full: ballast of the index given up", "dir", g.dir, "free", free)
		if err := g.dropBallast(); err != nil {
			g.log.Warn("ballast of the index", "err", err)
		}
	case !g.held && g.size > 0 && free >= need+g.size:
		if err := allocate(g.ballast, g.size); err != nil {
			// A quota that statfs does not show, for one: no ballast, no changes.
			g.log.Debug("ballast of the index", "err", err)
			return
		}
		g.held = true
	}
}

// dropBallast is called with g.mu held.
func (g *guard) dropBallast() error {
	g.held = false
	if err := os.Remove(g.ballast); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// allocate makes a file of size bytes that has all its blocks.
func allocate(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	return fallocate(f, size)
}

// usage returns the bytes of the tables and of the logs that are not tables yet.
// Files may go while it looks.
func usage(dir string) (tables, logs int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".sst":
			tables += info.Size()
		case ".mem":
			logs += allocated(info)
		}
	}
	return tables, logs, nil
}
