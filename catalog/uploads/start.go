// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"context"
	"log/slog"
	"time"

	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
)

// New returns the uploads of a catalogue. They end when that is closed: see Drain. There
// must be one for each catalogue. A nil log drops what is logged.
func New(cat *catalog.Catalog, log *slog.Logger) *Uploads {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	u := &Uploads{cat: cat, log: log}
	u.runs = &runs{
		background: cat.Go, upload: u.upload, log: log,
		runs: make(map[string]*run), queued: make(map[string]bool), change: make(chan struct{}),
	}
	u.queue = queue{cat: cat, log: log, runs: u.runs, publish: u.Retry, slots: make(chan struct{}, uploadWorkers)}
	return u
}

// Start begins to publish in the background, first what an earlier process left, and
// sweeps the spool once an hour until ctx ends. Errors: those of catalog.Options.State.
func (u *Uploads) Start(ctx context.Context) error {
	s, err := u.cat.State()
	if err != nil || s.Spool == nil {
		return err
	}
	var accepted []string // as their programs were told
	for _, d := range s.Spool.Drafts() {
		if d.Target.Async && (d.State == spool.Sealed || d.State == spool.Failed) {
			accepted = append(accepted, d.ID)
		}
	}
	u.queue.start(accepted)
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

// Standing opens the drafts that are files of the tree, the oldest first, also those of an
// earlier process: they wait to be published in the background, or have a name that is
// no image's. It opens the state. The caller closes them.
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

// Pending reports whether a draft is being published, or waits for that in the background.
// Before Start it may do so.
func (u *Uploads) Pending(id string) bool { return u.runs.pending(id) }
