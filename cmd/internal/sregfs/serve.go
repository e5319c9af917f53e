// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/version"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

// lockTimeout is how long starting waits for a sreg that has the state. A mount
// that has it is not waited for.
const lockTimeout = 10 * time.Second

// A server is the process that stays.
type server struct {
	*command
	opts    engine.Options
	engine  *engine.Engine
	end     *ending
	mounted atomic.Pointer[fusefs.Mounted] // nil until it is
	logName string                         // of the log file; "" for the standard error
	ready   *readyPipe
}

// serve mounts, stays until the mount ends or a signal comes, and cleans up.
func (c *command) serve(ctx context.Context, ready *readyPipe) error {
	s := &server{command: c, ready: ready, end: newEnding(ctx)}
	defer s.end.forget()
	err := s.serve(s.end.asked)
	if s.end.asked.Err() != nil && errors.Is(err, context.Canceled) {
		return exit.WithCode(exit.Interrupted, err)
	}
	return err
}

// serve is command.serve; it begins to end with ctx.
func (s *server) serve(ctx context.Context) (err error) {
	c := s.command
	s.opts, err = engine.Configure(&c.settings, c.flags, engine.Source{
		Getenv: c.getenv, Config: c.config, Remotes: c.remotes,
		Log: newLog(c.err, slog.LevelWarn), Notice: func(text string) { fmt.Fprintln(c.err, "sregfs: "+backends.Printable(text)) },
	})
	if err != nil {
		return err
	}
	for _, note := range s.opts.StateNotes {
		s.opts.Notice(note)
	}
	logFile, err := s.openLog()
	if err != nil {
		return err
	}
	defer logFile.Close()
	harden(s.opts.Log, s.opts.Notice)
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if s.engine, err = engine.New(working, s.opts); err != nil {
		return err
	}
	err = s.run(ctx, working, logFile)
	s.end.begin(s.settings.StopTimeout, s.opts.Log)
	// Everything that was accepted is in the journal: what does not get through in
	// time goes on at the next start.
	drain, stop := context.WithTimeout(working, c.settings.StopTimeout)
	defer stop()
	if closeErr := s.engine.Close(drain); !errors.Is(closeErr, context.DeadlineExceeded) {
		err = errors.Join(err, closeErr)
	} else {
		s.opts.Log.Warn("uploads are not finished; they go on at the next start")
	}
	return err
}

// openLog sends the log to its file: in the background always, else if one is named.
func (s *server) openLog() (*logFile, error) {
	s.logName = s.settings.LogFile
	if s.logName == "" && s.ready != nil {
		s.logName = filepath.Join(s.opts.State, "sregfs.log")
	}
	if s.logName == "" {
		s.opts.Log = newLog(s.err, s.logLevel())
		return nil, nil
	}
	f, err := openLog(s.logName)
	if err != nil {
		return nil, err
	}
	s.opts.Log = newLog(f, s.logLevel())
	return f, nil
}

// run mounts and waits for the end. The engine is closed by the caller, who ends
// what goes on meanwhile with ctx.
func (s *server) run(starting, ctx context.Context, logFile *logFile) error {
	// Before the lock: who has mistyped the directory is told of that.
	if _, err := fusefs.Check(starting, s.mountpoint, s.mountOptions()); err != nil {
		return mountError(err)
	}
	socket, err := s.takeState(starting)
	if err != nil {
		return err
	}
	serving := s.serveControl(ctx, socket)
	defer serving()
	if err := s.attach(starting); err != nil {
		return err
	}
	if err := s.engine.Catalog.Start(ctx); err != nil {
		return errors.Join(err, s.detach())
	}
	s.opts.Log.Info("mounted", "at", s.mountpoint, "version", version.String(), "pid", os.Getpid(), "state", s.opts.State)
	if s.ready != nil {
		err := logFile.redirect()
		if err == nil {
			err = s.ready.ready()
		}
		if err != nil {
			return errors.Join(err, s.detach())
		}
	} else {
		// Outside of systemd there is nobody to tell, which is no error.
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=mounted at "+s.mountpoint)
	}
	return s.wait()
}

// takeState takes the lock and listens, so that a sreg finds us rather than
// waiting for the lock.
func (s *server) takeState(ctx context.Context) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	dir, err := s.engine.Lock(ctx)
	if err != nil {
		return nil, err
	}
	path := control.SocketPath(dir.Path(), s.getenv("XDG_RUNTIME_DIR"), os.Getuid())
	socket, err := control.Listen(path)
	if err != nil {
		return nil, err
	}
	if err := dir.Announce(path, s.mountpoint); err != nil {
		return nil, errors.Join(fmt.Errorf("state directory: %w", err), socket.Close())
	}
	return socket, nil
}

// serveControl answers sreg until the returned function is called, which waits
// for the requests under way to end.
func (s *server) serveControl(ctx context.Context, socket net.Listener) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	handler := control.Handler(s.engine.Catalog, control.Options{
		Mount: s.mountpoint, Details: s.details, Settle: s.settle, Log: s.opts.Log,
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := control.Serve(ctx, socket, handler, s.opts.Log); err != nil {
			s.opts.Log.Error("sreg cannot reach this mount any more", "err", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// settle waits for the mount to show what a verb of sreg did.
func (s *server) settle(ctx context.Context) error {
	if m := s.mounted.Load(); m != nil {
		return m.Settle(ctx)
	}
	return nil
}

// details is what status shows beyond what the catalogue knows.
func (s *server) details() map[string]string {
	all := map[string]string{}
	if m := s.mounted.Load(); m != nil {
		all = m.Status()
	}
	all["state"] = s.opts.State
	all["verify"] = s.settings.Verify
	if s.logName != "" {
		all["log"] = s.logName
	}
	return all
}

func (s *server) attach(ctx context.Context) error {
	tree := fsys.New(s.engine.Catalog, fsys.Options{
		ReadOnly: s.settings.ReadOnly, OpenWait: s.settings.Open == "wait", Disk: existing(s.settings.CacheDir), Log: s.opts.Log,
	})
	m, err := fusefs.Mount(ctx, s.mountpoint, tree, s.mountOptions())
	if err != nil {
		return mountError(err)
	}
	s.mounted.Store(m)
	return nil
}

// existing returns dir, or the nearest directory above it that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func (s *server) mountOptions() fusefs.Options {
	set := s.settings
	return fusefs.Options{
		AllowOther: set.AllowOther, ReadOnly: set.ReadOnly, UID: owner(set.UID), GID: owner(set.GID), Umask: fs.FileMode(set.Umask),
		NoPassthrough: set.Passthrough == "off", Log: s.opts.Log,
	}
}

func mountError(err error) error {
	if errors.Is(err, fusefs.ErrMounted) {
		return exit.WithCode(exit.Locked, err)
	}
	return err
}

// owner is 0, whoever mounts, where nothing is said.
func owner(id int) uint32 { return uint32(max(id, 0)) }

// wait returns when the mount is over: by a signal, or because somebody has
// unmounted it and the last file is closed.
func (s *server) wait() error {
	over := make(chan error, 1)
	go func() { over <- s.mounted.Load().Wait() }() // ends with the mount, or the process
	for {
		select {
		case err := <-over:
			s.opts.Log.Info("unmounted from outside")
			s.stopping()
			return err
		case <-s.end.hangups:
			s.opts.Log.Info("listings are asked for again")
			s.engine.Catalog.Expire()
		case <-s.end.asked.Done():
			s.opts.Log.Info("stopping", "cause", context.Cause(s.end.asked))
			s.stopping()
			return s.detach()
		}
	}
}

func (s *server) stopping() {
	s.end.begin(s.settings.StopTimeout, s.opts.Log)
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
}

// detach takes the mount away. Where files are open, it disappears from the tree
// and those who have them keep them for as long as uploads take to finish.
func (s *server) detach() error {
	err := s.mounted.Load().Unmount(false)
	if errors.Is(err, fusefs.ErrBusy) {
		s.opts.Log.Info("files are open: unmounting lazily")
		err = s.mounted.Load().Unmount(true)
	}
	return err
}
