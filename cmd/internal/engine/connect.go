// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

// A Session is a client of an engine, wherever that runs.
type Session struct {
	Client *control.Client
	Mount  string  // mount point of the running mount; "" if none is
	Names  string  // how names are spelled there: fsys.Names
	engine *Engine // nil if it runs in another process
}

const (
	// startWait is how long a mount that has the lock may take to listen, or to
	// end where it listens no more.
	startWait = 10 * time.Second
	// announceWait is how long a process may take from having the lock to saying
	// who it is.
	announceWait = 100 * time.Millisecond
	holderPoll   = 10 * time.Millisecond
)

// Connect gives a client of the mount that has the state directory, or else of an
// engine in this process, which takes the directory when it needs it.
func Connect(ctx context.Context, o Options) (*Session, error) {
	for start := time.Now(); ; {
		holder, err := statedir.Holder(o.State)
		waited := time.Since(start)
		switch {
		case err != nil, holder.Socket == "" && waited > announceWait:
			// Nobody, or another sreg: what needs no state need not wait for it.
			return local(ctx, o)
		case holder.Socket != "":
			c, err := control.Dial(ctx, holder.Socket)
			if err == nil {
				return &Session{Client: c, Mount: holder.Mount, Names: holder.Names}, nil
			}
			if !errors.Is(err, control.ErrNobody) || waited > startWait {
				return nil, exit.WithCode(exit.Locked, errors.Join(err, &statedir.HeldError{Path: o.State, Holder: holder}))
			}
		}
		if !backends.Pause(ctx, holderPoll, nil) {
			return nil, ctx.Err()
		}
	}
}

func local(ctx context.Context, o Options) (*Session, error) {
	e, err := New(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Session{Client: control.Local(control.Handler(e.Verbs, control.Options{Log: o.Log})), engine: e}, nil
}

// Held reports whether a mount has taken the state since Connect: what failed for
// that reason may succeed over a new session.
func (s *Session) Held() bool { return s.engine != nil && s.engine.Held() }

// Close ends the session. Uploads that it began in this process are finished
// first, or stay in the spool if ctx ends.
func (s *Session) Close(ctx context.Context) error {
	err := s.Client.Close()
	if s.engine != nil {
		err = errors.Join(err, s.engine.Close(ctx))
	}
	return err
}
