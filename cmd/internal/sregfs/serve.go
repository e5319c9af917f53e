// SPDX-License-Identifier: Apache-2.0

package sregfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/cmd/internal/engine"
	"github.com/sregfs/sregfs/cmd/internal/exit"
	"github.com/sregfs/sregfs/cmd/internal/metrics"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
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
	log     *logFile                       // nil for the standard error
	starter *starter                       // nil in the foreground
	dir     *statedir.Dir                  // nil until it is locked
	started time.Time
	metrics *metrics.Metrics // nil until it listens
}

// serve mounts, stays until the mount ends or a signal comes, and cleans up.
func (c *command) serve(ctx context.Context, starter *starter) error {
	s := &server{command: c, starter: starter, end: newEnding(ctx), started: time.Now()}
	defer s.end.forget()
	starter.watch(s.end.ask)
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
		Getenv: c.getenv, Config: c.config, Remotes: c.remotes, Root: c.system,
		Log: newLog(c.err, slog.LevelWarn), Notice: func(text string) { fmt.Fprintln(c.err, "sregfs: "+backends.Printable(text)) },
	})
	if err != nil {
		return err
	}
	for _, note := range slices.Concat(c.settings.Warnings, s.opts.StateNotes) {
		s.opts.Notice(note)
	}
	logFile, err := s.openLog()
	if err != nil {
		return err
	}
	defer logFile.Close()
	s.log = logFile
	harden(s.opts.Log, s.opts.Notice)
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if s.engine, err = engine.New(working, s.opts); err != nil {
		return err
	}
	err = s.run(ctx, working)
	// Everything that was accepted is in the journal: what does not get through in
	// time goes on at the next start.
	drain, stop := context.WithDeadline(working, s.end.begin(s.settings.StopTimeout, s.opts.Log))
	defer stop()
	return errors.Join(err, s.engine.Close(drain))
}

// detached reports whether this process has left whoever started it.
func (s *server) detached() bool { return s.starter != nil && !s.starter.supervises() }

// openLog sends the log to its file: in the background always, else if one is named.
func (s *server) openLog() (*logFile, error) {
	s.logName = s.settings.LogFile
	if s.logName == "" && s.detached() {
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
func (s *server) run(starting, ctx context.Context) error {
	if err := s.awaitFormer(starting); err != nil {
		return err
	}
	// Before the lock: who has mistyped the directory is told of that.
	if _, err := fusefs.Check(starting, s.mountpoint, s.mountOptions()); err != nil {
		return mountError(err)
	}
	socket, err := s.takeState(starting)
	if err != nil {
		return err
	}
	s.metrics = metrics.New(s.status, s.started)
	stopControl := s.serveControl(ctx, socket)
	defer stopControl()
	stopPublic := s.servePublic(ctx)
	defer stopPublic()
	if err := s.attach(starting); err != nil {
		return err
	}
	if err := s.engine.Start(ctx); err != nil {
		return errors.Join(err, s.detach())
	}
	defer s.writeMetrics(ctx)()
	s.opts.Log.Info("mounted", "at", s.mountpoint, "version", version.String(), "pid", os.Getpid(), "state", s.opts.State)
	if s.detached() {
		if err := s.log.redirect(); err != nil {
			return errors.Join(err, s.detach())
		}
	}
	if s.starter != nil {
		if err := s.starter.ready(); err != nil {
			return errors.Join(err, s.detach())
		}
	}
	if s.wait() {
		return nil
	}
	return s.stop(ctx, stopControl)
}

// awaitFormer waits for a mount on our state directory that was told to end, or was
// unmounted lazily just now, and says whom it waits for. Errors: ctx's.
func (s *server) awaitFormer(ctx context.Context) error {
	tick := time.NewTicker(formerPoll)
	defer tick.Stop()
	notices := time.Now().Add(noticeTime)
	for told := false; ; {
		holder, err := statedir.Holder(s.opts.State)
		ends := holder.Ends
		if ends.IsZero() && holder.Mount == s.mountpoint && !fusefs.IsMounted(s.mountpoint) {
			ends = notices
		}
		if err != nil || !time.Now().Before(ends) {
			return nil //nolint:nilerr // nobody holds it, or taking the lock will tell
		}
		if !told {
			told = true
			held := &statedir.HeldError{Path: s.opts.State, Holder: holder}
			s.opts.Log.Info("waiting for the former mount", "state", held)
			s.opts.Notice("waiting: " + held.Error())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

const (
	formerPoll = 50 * time.Millisecond
	// noticeTime is how long a mount may take to notice that it was unmounted.
	noticeTime = 5 * time.Second
)

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
	if err := dir.Announce(path, s.mountpoint, s.settings.Names); err != nil {
		return nil, errors.Join(fmt.Errorf("state directory: %w", err), socket.Close())
	}
	s.dir = dir
	return socket, nil
}

// serveControl answers sreg until the returned function is called, which waits
// for the requests under way to end.
func (s *server) serveControl(ctx context.Context, socket net.Listener) (stop func()) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	mux.Handle("/", control.Handler(s.engine.Verbs, control.Options{
		Mount: s.mountpoint, Details: s.details, Refusals: s.refusals, Settle: s.settle, Reload: s.engine.Reload, Log: s.opts.Log,
	}))
	return s.serveOn(ctx, socket, mux)
}

// serveOn answers on a socket until the returned function is called.
func (s *server) serveOn(ctx context.Context, socket net.Listener, handler http.Handler) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
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

// servePublic answers the sreg of other users, who may see the mount, until the returned
// function is called. Where the directory for it is not ours to use they are not answered.
func (s *server) servePublic(ctx context.Context) (stop func()) {
	if _, handed := fdMount(s.mountpoint); handed || !s.settings.AllowOther {
		return func() {}
	}
	// Who sees nothing in the mount is told nothing of it.
	group := -1
	switch umask := s.settings.Umask; {
	case umask&0o050 != 0:
		return func() {}
	case umask&0o005 != 0:
		group = int(s.mountOptions().GID)
	}
	path := control.PublicSocket(filepath.Join(s.opts.Root, control.PublicDir), s.mountpoint)
	socket, err := control.ListenPublic(path, group)
	if err != nil {
		s.opts.Log.Info("other users see the mount, and their sreg is not answered", "err", err)
		return func() {}
	}
	handler := control.PublicHandler(s.engine.Verbs, control.Options{
		Mount: s.mountpoint, Names: s.settings.Names, Details: s.details, Log: s.opts.Log,
	})
	return s.serveOn(ctx, socket, handler)
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
	if by := s.end.begun(); !by.IsZero() {
		all["stopping"] = fmt.Sprintf("what is written and uploaded has until %s: %s", by.Format(time.TimeOnly), s.users())
	}
	all["since"] = s.started.Format(time.DateTime)
	all["state"] = s.opts.State
	all["verify"] = s.settings.Verify
	if s.logName != "" {
		all["log"] = s.logName
	}
	return all
}

// refusals is what status shows of changes that were refused.
func (s *server) refusals() (all []verbs.Refusal) {
	if m := s.mounted.Load(); m != nil {
		for _, r := range m.Refusals() {
			all = append(all, verbs.Refusal(r))
		}
	}
	return all
}

func (s *server) attach(ctx context.Context) error {
	tree := fsys.New(s.engine.Catalog, s.engine.Uploads, fsys.Options{
		Names: fsys.Names(s.settings.Names), GID: s.mountOptions().GID, ReadOnly: s.settings.ReadOnly, OpenWait: s.settings.Open == "wait", Disk: existing(s.settings.CacheDir), Log: s.opts.Log,
		Finders: s.engine.Names().Dirs(),
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
		AllowOther: set.AllowOther, ReadOnly: set.ReadOnly, UID: owner(set.UID), GID: cmp.Or(owner(set.GID), uint32(os.Getgid())), Umask: fs.FileMode(set.Umask),
		MountFlags: s.mountFlags, NoPassthrough: set.Passthrough == "off", Log: s.opts.Log,
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

// reload takes up what changed outside: the name of the log, listings, and the configuration.
func (s *server) reload() {
	if err := s.log.reopen(); err != nil {
		s.opts.Log.Error("the log goes on in the file that it was", "err", err)
	}
	s.engine.Catalog.Expire()
	done, err := s.engine.Reload(s.end.asked, "")
	if err != nil {
		s.opts.Log.Error("the configuration stays as it was; listings are asked for again", "err", err)
		return
	}
	s.opts.Log.Info("listings are asked for again, and the configuration was read", "added", done.Added, "changed", done.Changed, "removed", done.Removed, "at the next start", done.Waiting)
}
