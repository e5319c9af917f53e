// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"reflect"
	"slices"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// Reload reads the configuration again while the catalogue is in use. Remotes that
// are new are added; the one called reopen, if any, is opened again, with the login
// that is stored for it now. What was refused or absent is asked for again. A remote that was changed or removed is only named:
// uploads, bytes in the cache and open files belong to it as it was. Of the other
// settings nothing is taken up.
//
// Errors: those of the configuration, of which nothing is taken up then.
func (e *Engine) Reload(ctx context.Context, reopen string) (control.Reloaded, error) {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	done := control.Reloaded{Added: []string{}, Waiting: []string{}}
	found, err := config.LoadRemotes(e.opts.Inputs)
	if err != nil {
		return done, exit.WithCode(exit.Usage, err)
	}
	var open []config.Remote
	for _, r := range found {
		was, known := remoteCalled(e.remotes, r.Name)
		switch {
		case r.Name == config.Local: // its place depends on flags, which do not change
		case !known:
			done.Added = append(done.Added, r.Name)
			open = append(open, r)
		case !sameRemote(was, r):
			done.Waiting = append(done.Waiting, r.Name)
		case r.Name == reopen && e.opts.typeOf(r).Login != backends.LoginToken: // those look for the login whenever they need one
			open = append(open, r)
		}
	}
	for _, was := range e.remotes {
		if _, still := remoteCalled(found, was.Name); !still {
			done.Waiting = append(done.Waiting, was.Name)
		}
	}
	for _, r := range open {
		remote, err := e.opts.openRemote(context.WithoutCancel(ctx), r)
		if err != nil {
			return done, err
		}
		e.Catalog.SetRemote(remote)
		if _, known := remoteCalled(e.remotes, r.Name); !known {
			e.remotes = append(e.remotes, r)
		}
	}
	e.Catalog.LookAgain()
	return done, nil
}

func remoteCalled(list []config.Remote, name string) (config.Remote, bool) {
	i := slices.IndexFunc(list, func(r config.Remote) bool { return r.Name == name })
	if i < 0 {
		return config.Remote{}, false
	}
	return list[i], true
}

// sameRemote compares all but the place in the file, which moves when something
// above it changes.
func sameRemote(a, b config.Remote) bool {
	a.Origin, b.Origin = "", ""
	return reflect.DeepEqual(a, b)
}
