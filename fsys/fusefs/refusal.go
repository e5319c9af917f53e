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
	"github.com/sregfs/sregfs/fsys"
)

// maxRefusals bounds how many are kept.
const maxRefusals = 20

// repeatLog is how long the same refusal is not logged again.
const repeatLog = time.Minute

// refusals are the last ones, each once.
type refusals struct {
	mu   sync.Mutex // guards the fields below
	last []Refusal  // the newest at the end
}

// add reports whether r is to be logged. It is not if the same was logged a moment ago, or
// if closing a file repeats why a write failed.
func (s *refusals) add(r Refusal) (news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.last); r.Op == "close" && n > 0 && s.last[n-1].Path == r.Path && s.last[n-1].Error == r.Error {
		return false
	}
	r.Count, news = 1, true
	if i := slices.IndexFunc(s.last, func(o Refusal) bool { return o.Op == r.Op && o.Path == r.Path && o.Error == r.Error }); i >= 0 {
		r.Count, news = s.last[i].Count+1, r.Time.Sub(s.last[i].Time) > repeatLog
		s.last = slices.Delete(s.last, i, i+1)
	}
	if s.last = append(s.last, r); len(s.last) > maxRefusals {
		s.last = slices.Delete(s.last, 0, 1)
	}
	return news
}

// addRefusal adds the last refusal for which is returns true to a node's attributes, as
// its error, if it has none. Refusals are not kept in nodes, which live only as long as
// the kernel caches them.
func (m *Mounted) addRefusal(attrs map[string]string, is func(Refusal) bool) map[string]string {
	m.refusals.mu.Lock()
	defer m.refusals.mu.Unlock()
	for _, r := range slices.Backward(m.refusals.last) {
		if attrs["error"] == "" && is(r) {
			if attrs = maps.Clone(attrs); attrs == nil {
				attrs = map[string]string{}
			}
			attrs["error"] = backends.Printable(fmt.Sprintf("%s %s: %s", r.Op, path.Base(r.Path), r.Error))
		}
	}
	return attrs
}

// Refusals returns the changes of the tree that were refused last, each once, the
// newest at the end. It may be called from many goroutines.
func (m *Mounted) Refusals() []Refusal {
	m.refusals.mu.Lock()
	defer m.refusals.mu.Unlock()
	return slices.Clone(m.refusals.last)
}

// refuse is fail for an operation that changes the tree at that path. The reason is kept,
// shown by sreg status and by an attribute of the file and of its directory, and logged
// once. The same is done for an image that is listed but has no variant for this machine.
func (m *Mounted) refuse(op, path string, err error) syscall.Errno {
	e, known := errno(err)
	if isRoutine(e) && !errors.Is(err, backends.ErrNoVariant) {
		return e
	}
	r := Refusal{Time: time.Now(), Op: op, Path: path, Errno: e.Error(), Error: err.Error()}
	if e == syscall.EEXIST || e == syscall.ENOTEMPTY || m.refusals.add(r) { // these two errnos need no explanation
		m.logFailure(op, path, e, known, err)
	}
	return e
}

// isRoutine reports whether an errno is part of normal operation.
func isRoutine(e syscall.Errno) bool {
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

// xattrs are those of the directory, with the last refusal in it.
func (n *dirNode) xattrs() map[string]string {
	at := n.Path(nil)
	return n.m.addRefusal(n.dir.Xattrs(), func(r Refusal) bool {
		dir, _ := path.Split(r.Path)
		return strings.TrimSuffix(dir, "/") == at
	})
}

// xattrs are those of the image, with its last refusal under any of its names.
func (n *imageNode) xattrs() map[string]string {
	attrs := n.image.Xattrs()
	return n.m.addRefusal(attrs, func(r Refusal) bool {
		remote, ref, _, err := fsys.ParsePath(r.Path)
		return err == nil && ref == n.image.Ref() && remote == attrs["remote"]
	})
}

// Why some calls are always refused.
var (
	errNoLinks  = fmt.Errorf("%w: a registry has neither links nor devices", backends.ErrNotAllowed)
	errExchange = fmt.Errorf("%w: names cannot be exchanged", fs.ErrInvalid)
	errAllocate = fmt.Errorf("%w: only space at the end or within the file can be reserved", errors.ErrUnsupported)
)
