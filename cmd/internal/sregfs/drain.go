// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

// How a mount ends while files of it are open:
//
//	a signal, or umount -l
//	   │  the mount point is free; nothing more is opened
//	   │  what is being written is closed and published, uploads end: stop_timeout at most
//	   │  the state directory, the cache and the control socket are given up
//	   │  ── the next sregfs can have all of them ──
//	   │  images that are open are read on, until they are closed: drain_timeout at most
//	the end
//
// Without open files it ends with the uploads.

const (
	// renameGrace is how long after the last file was closed that was being written a
	// tool may take to rename it, which publishes it.
	renameGrace = time.Second
	// retellEvery is how often the entry of a retired process is brought up to date.
	retellEvery = 2 * time.Second
	// endDelay is how long after its mount point a mount without open files may end.
	endDelay = time.Second
	// maxNamed bounds how many open files a line of the log names.
	maxNamed = 10
)

// wait returns when the mount is to end, or over when it has ended: somebody has
// unmounted it and no file is open.
func (s *server) wait() (over bool) {
	m := s.mounted.Load()
	ended := make(chan struct{})
	go func() { // ends with the mount, or the process
		_ = m.Wait()
		close(ended)
	}()
	detached := m.Detached()
	for {
		select {
		case <-ended:
			s.opts.Log.Info("unmounted from outside")
			s.starter.tell(stopping)
			return true
		case <-detached:
			// After a plain unmount, too, the mount point is gone a moment before the end.
			select {
			case <-ended:
			case <-time.After(endDelay):
				s.opts.Log.Info("unmounted lazily from outside")
				return false
			}
			detached = nil
		case <-s.end.hangups:
			s.reload()
		case <-s.end.asked.Done():
			s.opts.Log.Info("stopping", "cause", context.Cause(s.end.asked))
			return false
		}
	}
}

// stop ends the mount, and returns when no file of it is open any more, or it may not be
// waited for longer. stopControl ends the control socket.
func (s *server) stop(ctx context.Context, stopControl func()) error {
	m := s.mounted.Load()
	by := s.end.begin(s.settings.StopTimeout, s.opts.Log)
	m.Drain()
	s.starter.tell(stopping)
	// Whoever wants the directory may wait from now on. The lock is held whatever this says.
	if err := s.dir.AnnounceEnd(by.Add(endGrace)); err != nil {
		s.opts.Log.Warn("others cannot learn that this process ends", "err", err)
	}
	err := s.detach()
	finish, cancel := context.WithDeadline(ctx, by)
	defer cancel()
	s.finish(finish, m)
	if reading := slices.ContainsFunc(m.Users(), func(u fusefs.User) bool { return !u.Writing }); !reading || s.settings.DrainTimeout <= 0 {
		return err
	}
	ends := time.Now().Add(s.settings.DrainTimeout)
	tell := s.retire(m, ends)
	defer tell.close()
	stopControl()
	m.Retire()
	hand, cancelHand := context.WithDeadline(ctx, by.Add(endGrace/2))
	defer cancelHand()
	if handErr := s.engine.HandOver(hand); handErr != nil {
		return errors.Join(err, handErr)
	}
	s.end.pause()
	s.starter.tell(handedOver)
	s.serveOpen(ctx, m, ends, tell)
	return err
}

// finish waits for what is being written, and for uploads.
func (s *server) finish(ctx context.Context, m *fusefs.Mounted) {
	for s.writing(m) && m.Written(ctx) == nil && ctx.Err() == nil {
		backends.Pause(ctx, renameGrace, nil)
	}
	if s.writing(m) {
		s.opts.Log.Warn("files are still being written: what is here of them is kept as after a crash (sreg status), and the rest fails",
			"stop_timeout", s.settings.StopTimeout, "files", s.users())
	}
	if s.engine.Uploads.Drain(ctx); ctx.Err() != nil {
		s.opts.Log.Warn("uploads are not finished; they go on at the next start")
	}
}

func (s *server) writing(m *fusefs.Mounted) bool {
	return slices.ContainsFunc(m.Users(), func(u fusefs.User) bool { return u.Writing })
}

// An entry is what others find of this process once it has given the state up.
type entry struct {
	server     *server
	retirement *statedir.Retirement // nil if the disk did not take it
	ends       time.Time
}

// retire makes the entry of this process.
func (s *server) retire(m *fusefs.Mounted, ends time.Time) *entry {
	r, err := s.dir.Retire()
	if err != nil {
		s.opts.Log.Warn("sreg status cannot tell of this process any more", "err", err)
	}
	e := &entry{server: s, retirement: r, ends: ends}
	e.tell(m)
	return e
}

// tell brings the entry up to date.
func (e *entry) tell(m *fusefs.Mounted) {
	if e.retirement == nil {
		return
	}
	all := []statedir.OpenFile{}
	for _, u := range m.Users() {
		all = append(all, statedir.OpenFile(u))
	}
	if err := e.retirement.Tell(all, e.ends); err != nil {
		e.server.opts.Log.Warn("sreg status may show old facts of this process", "err", err)
	}
}

func (e *entry) close() {
	if e.retirement != nil {
		_ = e.retirement.Close() // whoever finds it sees that its process is gone
	}
}

// serveOpen returns when all files are closed, or at ends. Until then it keeps the entry
// of this process true.
func (s *server) serveOpen(ctx context.Context, m *fusefs.Mounted, ends time.Time, entry *entry) {
	s.opts.Log.Info("files are open: they can be read until they are closed, or drain_timeout is over; all else was handed over",
		"drain_timeout", s.settings.DrainTimeout, "until", ends.Format(time.DateTime), "files", s.users())
	ctx, cancel := context.WithDeadline(ctx, ends)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- m.Finished(ctx) }() // ends with ctx
	tick := time.NewTicker(retellEvery)
	defer tick.Stop()
	for {
		entry.tell(m)
		select {
		case err := <-closed:
			if err != nil {
				s.opts.Log.Warn("drain_timeout is over: files that are still open cannot be read any more",
					"drain_timeout", s.settings.DrainTimeout, "files", s.users())
				return
			}
			s.opts.Log.Info("all files are closed")
			return
		case <-tick.C:
		}
	}
}

// detach takes the mount away. Where files are open, it disappears from the tree
// and those who have them keep them.
func (s *server) detach() error {
	m := s.mounted.Load()
	err := m.Unmount()
	if errors.Is(err, fusefs.ErrBusy) {
		s.opts.Log.Info("in use: unmounting lazily")
		err = m.Detach()
	}
	return err
}

// users names the files that are open, and who has opened them, in one line.
func (s *server) users() string {
	m := s.mounted.Load()
	if m == nil {
		return "no file is open"
	}
	users := m.Users()
	var all []string
	for _, u := range users[:min(len(users), maxNamed)] {
		all = append(all, fmt.Sprintf("%s (%s)", u.Name, openerOf(u)))
	}
	if n := len(users) - len(all); n > 0 {
		all = append(all, fmt.Sprintf("%d more", n))
	}
	if len(all) == 0 {
		return "no file is open"
	}
	return strings.Join(all, ", ")
}

func openerOf(u fusefs.User) string {
	who := "another process"
	if u.PID != 0 {
		who = fmt.Sprintf("pid %d", u.PID)
	}
	if u.Program != "" {
		who += " " + u.Program
	}
	if u.Writing {
		who += ", writing"
	}
	return who
}
