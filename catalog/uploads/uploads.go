// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
)

// Uploads publish the drafts of a catalogue's spool. Make them with New. All methods may
// be called from many goroutines at once.
type Uploads struct {
	cat       *catalog.Catalog
	log       *slog.Logger
	runs      *runs
	queue     queue
	turns     backends.Locks // by name: one push to a name at a time
	published atomic.Int64   // counts what was published, before rebase looks for drafts that follow
}

// New returns the uploads of a catalogue, which end when that is closed: see Drain. There
// is no more than one for each catalogue. A nil log drops what is logged.
func New(cat *catalog.Catalog, log *slog.Logger) *Uploads {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	u := &Uploads{cat: cat, log: log}
	u.runs = &runs{
		background: cat.Go, upload: u.upload, log: log,
		runs: make(map[string]*run), queued: make(map[string]bool), change: make(chan empty),
	}
	u.queue = queue{cat: cat, log: log, runs: u.runs, publish: u.Retry, slots: make(chan empty, uploadWorkers)}
	return u
}

// Start takes up what an earlier process left, opens the queue, and sweeps the spool once
// an hour until ctx ends. Errors: those of catalog.Options.State.
func (u *Uploads) Start(ctx context.Context) error {
	s, err := u.cat.State()
	if err != nil || s.Spool == nil {
		return err
	}
	u.runs.mu.Lock()
	u.runs.started = true
	u.runs.mu.Unlock()
	for _, d := range s.Spool.Drafts() {
		if d.Target.Async && (d.State == spool.Sealed || d.State == spool.Failed) {
			u.queue.add(d.ID, math.MaxInt) // they have been accepted
		}
	}
	u.cat.Go(func(own context.Context) {
		tick := time.NewTicker(time.Hour)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.Spool.Sweep()
			case <-ctx.Done():
				return
			case <-own.Done():
				return
			}
		}
	})
	return nil
}

// Drain waits until ctx ends for the uploads that are queued or running. It is called
// before the catalogue is closed, which ends them.
func (u *Uploads) Drain(ctx context.Context) { u.runs.drain(ctx) }

// Standing opens the drafts that are files of the tree, the oldest first, those that
// an earlier process left among them: they wait to be published in the background, or
// have a name that is no image's. It opens the state. The caller closes them.
func (u *Uploads) Standing() []*spool.Draft {
	s, err := u.cat.State()
	if err != nil || s.Spool == nil {
		return nil // the next call that needs the state says why there is none
	}
	var standing []*spool.Draft
	for _, info := range s.Spool.Drafts() {
		if !info.Queued() && info.Target.File == "" {
			continue
		}
		d, err := s.Spool.Standby(info.ID)
		if err != nil {
			u.log.Warn("a draft cannot be read", "draft", info.ID, "err", err)
			continue
		}
		standing = append(standing, d)
	}
	return standing
}

// Pending reports whether a draft is on its way to its registry, or waits for
// another try in the background.
func (u *Uploads) Pending(id string) bool { return u.runs.pending(id) }

// Retry publishes a failed, pending or incomplete upload now, and waits for it.
// Errors: fs.ErrNotExist if there is no such draft; fs.ErrInvalid for a file whose
// name is no image's; those of Publish.
func (u *Uploads) Retry(ctx context.Context, id string, p catalog.Progress) error {
	s, err := u.cat.State()
	if err != nil {
		return err
	}
	d, err := s.Spool.Draft(id)
	if err != nil {
		return err
	}
	defer shut(d)
	target := d.Info().Target
	if target.File != "" {
		return fmt.Errorf("upload %s: %q is no image's name: rename the file in the mount: %w", id, target.File, fs.ErrInvalid)
	}
	if _, err := d.Seal(ctx, gate(target)); err != nil {
		return pushError(target.Remote, target.Ref, err)
	}
	return u.runs.publish(ctx, d, p)
}

// shut closes a handle of a draft: its error has nothing to say.
func shut(c io.Closer) { c.Close() }
