// SPDX-License-Identifier: Apache-2.0

package sreg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/catalog/verbs"
	"github.com/sregfs/sregfs/fsys"
	"github.com/sregfs/sregfs/fsys/fusefs"
)

// A systemMount is a mount of root, or of a service, that this user may see. It answers
// questions only.
type systemMount struct {
	client *control.Client
	status verbs.Status
}

func (m *systemMount) names() fsys.Names { return fsys.Names(m.status.Details[control.NamesDetail]) }

func (m *systemMount) close() { _ = m.client.Close() }

// systemWait is how long a system's mount may take to say that it is there.
const systemWait = 2 * time.Second

// systemMounts finds the mounts of the system. Who serves is checked: the kernel must say that
// the file system at the mount point is that user's.
func (a *app) systemMounts(ctx context.Context) (all []*systemMount) {
	sockets, _ := filepath.Glob(filepath.Join("/", a.system, control.PublicDir, "*.sock"))
	ctx, cancel := context.WithTimeout(ctx, systemWait)
	defer cancel()
	for _, socket := range sockets {
		c, owner, err := control.DialPublic(ctx, socket)
		if err != nil {
			a.log().Debug("a mount of the system is passed over", "socket", socket, "err", err)
			continue
		}
		st, err := c.Status(ctx)
		if uid, mounted := fusefs.Owner(st.Mount); err != nil || !mounted || uid != owner || st.Mount == a.mount {
			a.log().Debug("a mount of the system is passed over", "socket", socket, "mount", st.Mount, "err", err)
			_ = c.Close()
			continue
		}
		all = append(all, &systemMount{c, st})
	}
	return all
}

// elsewhere asks the mounts of the system, if this user has none, what failed here with err; it
// returns err if none of them knows.
func elsewhere[T any](ctx context.Context, a *app, err error, ask func(*systemMount) (T, error)) (T, error) {
	var zero T
	if a.mount != "" || errors.Is(err, fs.ErrInvalid) || ctx.Err() != nil {
		return zero, err
	}
	for _, m := range a.systemMounts(ctx) {
		defer m.close()
		if v, otherErr := ask(m); otherErr == nil {
			return v, nil
		}
	}
	return zero, err
}

// getElsewhere is "get" by a mount of the system.
func (a *app) getElsewhere(ctx context.Context, uri string, err error) (verbs.Record, error) {
	return elsewhere(ctx, a, err, func(m *systemMount) (verbs.Record, error) {
		r, err := m.client.Get(ctx, uri)
		if err != nil {
			return r, err
		}
		r.Path = filepath.Join(m.status.Mount, fsys.PathOf(m.names(), r.Remote, r.Ref, r.Format))
		_, err = os.Stat(r.Path) // with the permissions of this user
		return r, err
	})
}

// pathElsewhere is "path" by a mount of the system.
func (a *app) pathElsewhere(ctx context.Context, arg string) error {
	cause := fmt.Errorf("path %s: no mount is running: start one with sregfs MOUNTPOINT", arg)
	print, err := elsewhere(ctx, a, cause, func(m *systemMount) (func() error, error) {
		if inside, ok := insideMount(m.status.Mount, arg); ok {
			return func() error { return a.printURI(inside) }, nil
		}
		r, err := m.client.Find(ctx, arg)
		if err != nil {
			cause = err // there is one, and it does not know
		}
		path := filepath.Join(m.status.Mount, fsys.PathOf(m.names(), r.Remote, r.Ref, r.Format))
		return func() error { return a.printFound(path) }, err
	})
	if err != nil {
		return cause
	}
	return print()
}

// alsoElsewhere adds to a list of images what the mounts of the system know besides.
func (a *app) alsoElsewhere(ctx context.Context, own iter.Seq2[verbs.Record, error], o verbs.ImagesOptions) iter.Seq2[verbs.Record, error] {
	if a.mount != "" {
		return own
	}
	return func(yield func(verbs.Record, error) bool) {
		seen := map[string]bool{}
		var failed error
		for r, err := range own {
			if err != nil {
				failed = err
				break
			}
			seen[r.URI] = true
			if !yield(r, nil) {
				return
			}
		}
		found := 0
		for _, m := range a.systemMounts(ctx) {
			defer m.close()
			for r, err := range m.client.Images(ctx, o) {
				if err != nil {
					break
				}
				found++
				if !seen[r.URI] && !yield(r, nil) {
					return
				}
			}
		}
		if failed != nil && (found == 0 || !errors.Is(failed, fs.ErrNotExist)) { // a remote that only the system has is no error
			yield(verbs.Record{}, failed)
		}
	}
}

// printSystem prints the mounts of the system.
func (a *app) printSystem(all []verbs.Status) error {
	for _, st := range all {
		fmt.Fprintln(a.out)
		t := newTable(a.out)
		t.row("system", st.Mount+" ("+st.Version+", since "+st.Details["since"]+")")
		t.row("cache", fmt.Sprintf("%s, %d images whole, %d in part", size(st.Cache.Used), st.Cache.Whole, st.Cache.Partial))
		for _, r := range st.Remotes {
			t.row("remote", strings.TrimSpace(fmt.Sprintf("%s: %s, %s %s", r.Name, r.Type, plural(r.Images, "image"), r.URL)))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}

// systemStatus is what the mounts of the system say of themselves.
func (a *app) systemStatus(ctx context.Context) (all []verbs.Status) {
	for _, m := range a.systemMounts(ctx) {
		m.close()
		m.status.Mount = backends.Printable(m.status.Mount)
		all = append(all, m.status)
	}
	return all
}
