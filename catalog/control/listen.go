// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// maxSocketPath is the longest name that fits sockaddr_un.sun_path with its NUL,
// on the strictest of our systems.
const maxSocketPath = 103

// SocketPath returns where the owner of a state directory listens: in it, or if
// the name would be too long for a socket in runtimeDir ($XDG_RUNTIME_DIR, may be
// ""), or else in a directory of the user below /tmp.
func SocketPath(state, runtimeDir string, uid int) string {
	if path := filepath.Join(state, "control.sock"); len(path) <= maxSocketPath {
		return path
	}
	sum := sha256.Sum256([]byte(state))
	name := hex.EncodeToString(sum[:8]) + ".sock"
	if runtimeDir != "" {
		if path := filepath.Join(runtimeDir, "sregfs", name); len(path) <= maxSocketPath {
			return path
		}
	}
	return filepath.Join("/tmp", "sregfs-"+strconv.Itoa(uid), name)
}

// Listen listens on socket for callers of the own uid, and root. Its directory is
// created with mode 0700 if it is missing. A socket that is there already is
// replaced: the caller must hold the lock of the state directory.
//
// Errors: fs.ErrPermission if the directory belongs to somebody else or others
// may write to it.
func Listen(socket string) (net.Listener, error) {
	dir := filepath.Dir(socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the control socket: %w", err)
	}
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove an old control socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return peerListener{l}, nil
}

// A peerListener closes connections of other users.
type peerListener struct{ net.Listener }

// Accept implements net.Listener.
func (l peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if checkPeer(conn) == nil {
			return conn, nil
		}
		conn.Close()
	}
}

// closeGrace is how long requests may take to notice that the server ends.
const closeGrace = 3 * time.Second

// Serve answers requests on l with h until ctx ends, which ends running requests
// too. It closes l and removes its socket.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("control socket: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}
