// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// maxRefusals bounds what is remembered.
const maxRefusals = 20

// repeatLog is how long the same refusal is not logged again.
const repeatLog = time.Minute

// refusals are the last ones, each once.
type refusals struct {
	mu   sync.Mutex // guards the fields below
	last []Refusal  // the newest at the end
}

// add reports whether r is to be logged, and whether it is another one than the last:
// the closing of a file tells once more why a write failed.
func (s *refusals) add(r Refusal) (news, other bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.last); r.Op == "close" && n > 0 && s.last[n-1].Path == r.Path && s.last[n-1].Error == r.Error {
		return false, false
	}
	r.Count, news = 1, true
	if i := slices.IndexFunc(s.last, func(o Refusal) bool { return o.Op == r.Op && o.Path == r.Path && o.Error == r.Error }); i >= 0 {
		r.Count, news = s.last[i].Count+1, r.Time.Sub(s.last[i].Time) > repeatLog
		s.last = slices.Delete(s.last, i, i+1)
	}
	if s.last = append(s.last, r); len(s.last) > maxRefusals {
		s.last = slices.Delete(s.last, 0, 1)
	}
	return news, true
}

// Refusals returns the changes of the tree that were refused last, each once, the
// newest at the end. It may be called from many goroutines.
func (m *Mounted) Refusals() []Refusal {
	m.refusals.mu.Lock()
	defer m.refusals.mu.Unlock()
	return slices.Clone(m.refusals.last)
}

// refuse is fail for what would change the tree at that path: the reason is kept for
// whoever asks, by sreg status or by an attribute of the file or its directory, and
// logged once.
func (m *Mounted) refuse(op, path string, err error) syscall.Errno {
	e, known := errno(err)
	if isDaily(e) {
		return e
	}
	r := Refusal{Time: time.Now(), Op: op, Path: path, Errno: e.Error(), Error: err.Error()}
	news, other := true, true
	if e != syscall.EEXIST && e != syscall.ENOTEMPTY { // which say all
		news, other = m.refusals.add(r)
	}
	if news {
		m.logFailure(op, path, e, known, err)
	}
	if !other {
		return e
	}
	parts := strings.Split(path, "/")
	last := len(parts) - 1
	dir := m.known(parts[:last])
	if dir == nil {
		return e
	}
	text := backends.Printable(fmt.Sprintf("%s %s: %v", op, parts[last], err))
	dir.refusal.Store(&text)
	if image, ok := dir.known(parts[last]).(*imageNode); ok {
		image.image.Fail(err)
	}
	return e
}

// isDaily reports whether an errno is part of the daily run.
func isDaily(e syscall.Errno) bool {
	switch e {
	case 0, syscall.EINTR, syscall.ESTALE, syscall.EXDEV, syscall.ENOENT:
		return true
	}
	return false
}

func (m *Mounted) logFailure(op, name string, e syscall.Errno, known bool, err error) {
	level := slog.LevelInfo
	if !known || e == syscall.EIO {
		level = slog.LevelWarn
	}
	m.log.Log(context.Background(), level, "refused", "op", op, "name", name, "errno", e.Error(), "err", err)
}

// refuse is Mounted.refuse for a name in the directory.
func (n *dirNode) refuse(op, name string, err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return n.m.refuse(op, path.Join(n.Path(nil), name), err)
}

// xattrs are those of the directory, with what was refused in it last.
func (n *dirNode) xattrs() map[string]string {
	attrs := n.dir.Xattrs()
	if text := n.refusal.Load(); text != nil {
		if attrs = maps.Clone(attrs); attrs == nil {
			attrs = map[string]string{}
		}
		attrs["error"] = *text
	}
	return attrs
}

// What the calls ask for that are never granted.
var (
	errNoLinks  = fmt.Errorf("%w: a registry has neither links nor devices", backends.ErrNotAllowed)
	errExchange = fmt.Errorf("%w: names cannot be exchanged", fs.ErrInvalid)
	errAllocate = fmt.Errorf("%w: only space at the end or within the file can be reserved", errors.ErrUnsupported)
)
