// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/badger"
	"github.com/sregfs/sregfs/catalog/index"
	"github.com/sregfs/sregfs/catalog/inspect"
	"github.com/sregfs/sregfs/catalog/toolnames"
	"github.com/sregfs/sregfs/catalog/uploads"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
	"github.com/sregfs/sregfs/cmd/internal/version"
)

// An Engine is a catalogue with the remotes and the local state under it. The
// state is opened when it is first needed. Methods may be called from many
// goroutines at once.
type Engine struct {
	Catalog *catalog.Catalog
	Uploads *uploads.Uploads
	Verbs   *verbs.Verbs
	opts    Options
	hosts   *hosts

	reloading sync.Mutex                      // held by Reload
	settings  atomic.Pointer[config.Settings] // with what Reload has taken up; never changed, only replaced

	mu    sync.Mutex // guards the fields below
	dir   *statedir.Dir
	cache *cacheLock
	held  *statedir.HeldError
}

// Start begins the background work of a process that runs for long, until ctx ends: see
// catalog.Catalog.Start and uploads.Uploads.Start.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.Catalog.Start(ctx); err != nil {
		return err
	}
	return e.Uploads.Start(ctx)
}

// New opens the remotes. ctx bounds how long opening the state, later, waits for
// another process that has it.
//
// Errors: those of the configuration, with exit codes.
func New(ctx context.Context, o Options) (*Engine, error) {
	remotes, err := openRemotes(ctx, o)
	if err != nil {
		return nil, err
	}
	e := &Engine{opts: o}
	settings := *o.Settings
	e.settings.Store(&settings)
	e.hosts = &hosts{engine: e}
	e.Catalog, err = catalog.New(catalog.Options{
		Remotes: remotes,
		Hosts:   e.hosts,
		State:   func() (*catalog.State, error) { return e.openState(ctx) },
		Records: filepath.Join(o.Settings.Storage, ".sregfs"),
		ListTTL: o.Settings.ListTTL,
		Log:     o.Log,
	})
	if err != nil {
		closeRemotes(remotes)
		return nil, err
	}
	e.Uploads = uploads.New(e.Catalog, o.Log)
	e.Verbs = verbs.New(e.Catalog, e.Uploads, verbs.Options{Types: o.Types, Default: o.Settings.Default, Version: version.String(), Log: o.Log})
	return e, nil
}

// Names finds the images that the file names of other programs mean.
func (e *Engine) Names() *toolnames.Names {
	return toolnames.New(e.Catalog, e.Verbs, toolnames.Options{Types: e.opts.Types, List: e.opts.Settings.ImageList, Log: e.opts.Log})
}

// Close ends the catalogue, which waits for uploads until ctx ends, and gives
// the state up.
func (e *Engine) Close(ctx context.Context) error {
	e.Uploads.Drain(ctx)
	return errors.Join(e.Catalog.Close(), e.giveUp())
}

// HandOver gives the state up for another process while images are open, which can be
// read until Close.
//
// Errors: those of the local disk, and ctx's. The engine is closed then.
func (e *Engine) HandOver(ctx context.Context) error {
	e.Uploads.Drain(ctx)
	if err := e.Catalog.HandOver(ctx); err != nil {
		return errors.Join(err, e.Close(ctx))
	}
	return e.giveUp()
}

// giveUp unlocks the state and the cache.
func (e *Engine) giveUp() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cache != nil {
		e.cache.release()
		e.cache = nil
	}
	if e.dir == nil {
		return nil
	}
	err := e.dir.Unlock()
	e.dir = nil
	return err
}

// Held reports whether opening the state failed because a mount has it.
func (e *Engine) Held() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.held != nil
}

const (
	lockPoll   = 50 * time.Millisecond
	lockNotice = time.Second // after which a person is told what we wait for
)

// Lock takes the state directory, now rather than when the state is needed. It
// waits, until ctx ends, for a sreg that has it, but not for a mount: whoever
// mounts has it for days.
//
// Errors: *statedir.HeldError with its exit code; ctx's.
func (e *Engine) Lock(ctx context.Context) (*statedir.Dir, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lockLocked(ctx)
}

func (e *Engine) lockLocked(ctx context.Context) (*statedir.Dir, error) {
	if e.dir != nil {
		return e.dir, nil
	}
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	start, told := time.Now(), false
	for {
		dir, err := statedir.Lock(e.opts.State)
		held, isHeld := errors.AsType[*statedir.HeldError](err)
		switch {
		case err == nil:
			e.dir = dir
			return dir, nil
		case !isHeld:
			return nil, fmt.Errorf("state directory: %w", err)
		case held.Holder.Socket != "" && held.Holder.Ends.IsZero():
			e.held = held
			return nil, exit.WithCode(exit.Locked, held)
		case !told && time.Since(start) > lockNotice:
			e.opts.Notice(fmt.Sprintf("waiting for another sreg to finish (pid %d)", held.Holder.PID))
			told = true
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, exit.WithCode(exit.Locked, held)
		case <-tick.C:
		}
	}
}

// openState is catalog.Options.State: lock, index, cache, spool, in this order.
func (e *Engine) openState(ctx context.Context) (_ *catalog.State, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	dir, err := e.lockLocked(ctx)
	if err != nil {
		return nil, err
	}
	ballast := int64(0) // the usual
	if e.opts.Short {
		ballast = -1
	}
	store, err := badger.Open(dir.Index(), badger.Options{Log: e.opts.Log, Settled: debug.FreeOSMemory, Ballast: ballast})
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, store.Close())
		}
	}()
	if damage := store.Damage(); damage != nil {
		e.opts.Log.Warn("the index was damaged and is filled again", "err", damage)
	}
	drafts, err := spool.Open(dir.Spool(), spool.Options{Whole: uploads.IsWhole, Log: e.opts.Log})
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	blobs, err := e.openCache(store)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cache: %w", err), drafts.Close())
	}
	return &catalog.State{Index: index.New(store), Cache: blobs, Spool: drafts}, nil
}

func (e *Engine) openCache(store index.Store) (*cache.Cache, error) {
	s := e.opts.Settings
	lock, err := lockCache(s.CacheDir, e.opts.State)
	shared, limit, warning := s.CacheShared, int64(s.CacheSize), ""
	foreign, isForeign := errors.AsType[*statedir.ForeignError](err)
	switch {
	case cannotWrite(err), isForeign && os.Getuid() != 0: // root obeys no file of a user's
		// Images can still be read, and the cache that exists is still of use.
		warning = fmt.Sprintf("cache_dir cannot be written (%v): at most %s are kept in the state directory", err, humanize.IBytes(maxFallbackCache))
		if isForeign {
			warning = fmt.Sprintf("cache_dir %s is the cache of %s, and one cache has one user: it is read, and at most %s are kept in the state directory. "+
				"For one cache of a machine let %[2]s run sregfs --allow-other: sreg finds that mount", foreign.Path, foreign.Owner, humanize.IBytes(maxFallbackCache))
		}
		e.opts.Log.Warn(warning)
		shared = append([]string{s.CacheDir}, shared...)
		limit = min(cmp.Or(limit, maxFallbackCache), maxFallbackCache)
		lock, err = lockCache(e.opts.fallbackCache(), e.opts.State)
	case err == nil && lock.dir != s.CacheDir:
		e.opts.Log.Warn("the cache is in use by another sregfs: this one has its own", "cache", s.CacheDir, "own", lock.dir)
	}
	if err != nil {
		return nil, err
	}
	blobs, err := cache.Open(lock.dir, cache.Options{
		MaxBytes: limit,
		MinFree:  int64(s.MinFree),
		Index:    index.Blobs(store),
		Hints:    hints,
		Verify:   cache.Verification(s.Verify),
		FSVerity: s.FSVerity,
		Streams:  s.MaxStreams,
		Shared:   shared,
		Warning:  warning,
		Log:      e.opts.Log,
	})
	if err != nil {
		lock.release()
		return nil, err
	}
	e.cache = lock
	return blobs, nil
}

// maxStopgap bounds the cache in the state directory, where cache_dir cannot be
// written to. It is removed with the state.
const maxFallbackCache = 4 << 30

// hints tells the cache what running an image reads first.
func hints(ctx context.Context, r cache.ReaderAtContext, size int64) []cache.Range {
	var all []cache.Range
	for _, h := range inspect.Hot(ctx, readerAt{ctx, r}, size) {
		all = append(all, cache.Range{Off: h.Off, N: h.N})
	}
	return all
}

// A readerAt reads for as long as one call of inspect.Hot lasts.
type readerAt struct {
	ctx context.Context //nolint:containedctx // io.ReaderAt has no other way, and the value does not outlive the call
	r   cache.ReaderAtContext
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.r.ReadAtContext(r.ctx, p, off) }
