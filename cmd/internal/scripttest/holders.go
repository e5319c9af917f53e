// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/statedir"
)

// busy holds the state directory without listening, as a sreg does that works.
func (s *script) busy(ts *testscript.TestScript, _ bool, _ []string) {
	dir, err := statedir.Lock(state(ts))
	ts.Check(err)
	s.release(ts, func() { _ = dir.Unlock() })
}

// impostor holds the state directory and listens where a mount would, but does
// not speak its protocol.
func (s *script) impostor(ts *testscript.TestScript, _ bool, _ []string) {
	dir, err := statedir.Lock(state(ts))
	ts.Check(err)
	socket := control.SocketPath(dir.Path(), "", 0)
	l, err := control.Listen(socket)
	ts.Check(err)
	ts.Check(dir.Announce(socket, "/nowhere", ""))
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		nonsense := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
		_ = control.Serve(ctx, l, nonsense, slog.New(slog.DiscardHandler))
	}()
	s.release(ts, func() {
		cancel()
		<-served
		_ = dir.Unlock()
	})
}

// release notes how to give up what was taken: by the script, or when it ends.
func (s *script) release(ts *testscript.TestScript, free func()) {
	done := false
	s.free = func() {
		if !done {
			done = true
			free()
		}
	}
	ts.Defer(s.free)
}

// notifySocket makes what sd_notify(3) talks to.
func (s *script) notifySocket(ts *testscript.TestScript, _ bool, _ []string) {
	path := ts.MkAbs("notify.sock")
	var err error
	s.systemd, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	ts.Check(err)
	ts.Defer(func() { _ = s.systemd.Close() })
	ts.Setenv("NOTIFY_SOCKET", path)
}

func (s *script) notified(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: notified TEXT")
	}
	ts.Check(s.systemd.SetReadDeadline(time.Now().Add(30 * time.Second)))
	for buf := make([]byte, 4096); ; {
		n, err := s.systemd.Read(buf)
		ts.Check(err)
		if strings.Contains(string(buf[:n]), args[0]) {
			return
		}
	}
}
