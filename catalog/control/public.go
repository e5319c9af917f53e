// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/verbs"
)

// PublicDir is where mounts that other users may see listen for them. Only root, or whom
// root has given the directory, makes a socket there.
const PublicDir = "/run/sregfs"

// PublicSocket returns where the mount at a directory listens for other users.
func PublicSocket(dir, mount string) string {
	sum := sha256.Sum256([]byte(mount))
	name := strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return -1
		}
		return r
	}, filepath.Base(mount))
	return filepath.Join(dir, name[:min(len(name), 16)]+"-"+hex.EncodeToString(sum[:4])+".sock")
}

// PublicHandler serves what every user of the machine may ask: names, what images say of
// themselves, and how the remotes and the cache stand. It changes nothing, and tells
// nothing of other users: no paths, transfers, uploads or errors.
func PublicHandler(v *verbs.Verbs, opts Options) http.Handler {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return newMux(opts.Log, map[string]verb{
		"images": verbOf(func(ctx context.Context, r imagesRequest, out *frameWriter) error {
			r.Refresh = false // that asks all registries, for hours
			all := public(v.Images(ctx, r.ImagesOptions))
			if r.Brief {
				return sendAll(out, brief(all))
			}
			return sendAll(out, all)
		}),
		"get": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			rec, err := v.Get(ctx, r.URI)
			return sendOne[verbs.Record](out)(publicRecord(rec), err)
		}),
		"find": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			rec, err := v.Find(ctx, r.URI)
			return sendOne[verbs.Record](out)(publicRecord(rec), err)
		}),
		"inspect": verbOf(func(ctx context.Context, r uriRequest, out *frameWriter) error {
			in, err := v.Inspect(ctx, r.URI)
			if err != nil {
				return err
			}
			in.Record = publicRecord(in.Record)
			return out.item(in)
		}),
		"status": verbOf(func(ctx context.Context, _ noneRequest, out *frameWriter) error {
			st, err := v.Status(ctx)
			if err != nil {
				return err
			}
			return out.item(publicStatus(st, opts))
		}),
	})
}

// publicRecord is of a record what is everybody's: where a file lies is its owner's.
func publicRecord(r verbs.Record) verbs.Record {
	r.Path = ""
	if strings.HasPrefix(r.URL, "file:") {
		r.URL = ""
	}
	return r
}

func public(all iter.Seq2[verbs.Record, error]) iter.Seq2[verbs.Record, error] {
	return func(yield func(verbs.Record, error) bool) {
		for r, err := range all {
			if !yield(publicRecord(r), err) {
				return
			}
		}
	}
}

// publicStatus is of a status what is everybody's.
func publicStatus(st verbs.Status, opts Options) verbs.Status {
	all := verbs.Status{Version: st.Version, Mount: opts.Mount, Details: map[string]string{}, Uploads: []spool.Info{}, Pushes: []verbs.Pushing{}}
	if opts.Details != nil {
		all.Details["since"] = opts.Details()["since"]
	}
	all.Details[NamesDetail] = opts.Names
	for _, r := range st.Remotes {
		r.URL = backends.Redact(r.URL)
		if !strings.Contains(r.URL, "://") {
			r.URL = "" // a directory of the owner's
		}
		if r.Error != "" {
			r.Error = "has an error, which its administrator sees"
		}
		all.Remotes = append(all.Remotes, r)
	}
	c := st.Cache
	all.Cache = verbs.CacheStatus{Used: c.Used, Limit: c.Limit, Blobs: c.Blobs, Whole: c.Whole, Partial: c.Partial, Pinned: c.Pinned,
		Transfers: []verbs.Cached{}, Refused: []verbs.Cached{}}
	return all
}

// NamesDetail is the key of a status's details that says how names are spelled.
const NamesDetail = "names"

// maxPublic is how many connections of other users there are at once: each takes a
// descriptor of the mount.
const maxPublic = 64

// ListenPublic listens on socket for all users, or with a group for those in it alone. Its
// directory is created with mode 0755 if it is missing.
//
// Errors: fs.ErrPermission if the directory is somebody else's, or others may write to it;
// those of the local disk.
func ListenPublic(socket string, group int) (net.Listener, error) {
	dir := filepath.Dir(socket)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // others look for sockets in it
		return nil, err
	}
	if owner, err := publicOwner(dir); err != nil || owner != os.Geteuid() {
		return nil, errors.Join(err, fmt.Errorf("%w: %s belongs to uid %d", fs.ErrPermission, dir, owner))
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	mode := fs.FileMode(0o666)
	if group >= 0 {
		mode, err = 0o660, os.Chown(socket, -1, group)
	}
	if err = errors.Join(err, os.Chmod(socket, mode)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &limitListener{Listener: l, slots: make(chan struct{}, maxPublic)}, nil
}

// DialPublic connects to a mount of another user, whose uid it returns: root, or the owner of the
// socket's directory, in which nobody else can have made a socket.
//
// Errors: those of Dial.
func DialPublic(ctx context.Context, socket string) (c *Client, owner int, err error) {
	trusted, err := publicOwner(filepath.Dir(socket))
	if err != nil {
		return nil, 0, err
	}
	check := func(conn net.Conn) error {
		owner = peerUID(conn)
		if owner != 0 && owner != trusted {
			return fmt.Errorf("%w: the other side is uid %d", fs.ErrPermission, owner)
		}
		return nil
	}
	c, err = dialChecked(ctx, socket, check)
	return c, owner, err
}

// A limitListener lets only so many connections be open at once.
type limitListener struct {
	net.Listener
	slots chan struct{}
}

// Accept implements net.Listener.
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.slots <- struct{}{}:
			return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
		default: // rather than wait, which Close would not end
			conn.Close()
		}
	}
}

type limitedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
