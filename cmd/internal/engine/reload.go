// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/control"
	"github.com/sregfs/sregfs/cmd/internal/config"
	"github.com/sregfs/sregfs/cmd/internal/exit"
)

// Reload reads the configuration again while the catalogue is in use. Remotes that are
// new are added, those that were removed go, and those that were changed are opened
// again, as is the one called reopen, with the login that is stored for it now. Requests
// under way and files that are open keep what they have; uploads that wait go to
// whatever has the name of their remote then, as after a restart. Of the other settings those in
// live are taken up. What was refused or absent is asked for again.
//
// Errors: those of the configuration, of which nothing is taken up then.
func (e *Engine) Reload(ctx context.Context, reopen string) (control.Reloaded, error) {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	done := control.Reloaded{Added: []string{}, Changed: []string{}, Removed: []string{}, Waiting: []string{}}
	found, err := config.LoadAgain(e.opts.Flags, e.opts.Inputs)
	if err != nil {
		return done, exit.WithCode(exit.Usage, err)
	}
	was := e.settings.Load()
	now := takeUp(*was, found, &done)
	open, err := e.openAgain(ctx, was, &now, reopen, &done)
	if err != nil {
		return done, err
	}
	e.settings.Store(&now)
	for _, r := range open {
		before, known := remoteCalled(was.Remotes, r.Name)
		after, _ := remoteCalled(now.Remotes, r.Name)
		if known && (before.Type != after.Type || !reflect.DeepEqual(before.Config, after.Config)) {
			e.Catalog.RemoveRemote(r.Name) // what the kernel knows of it is another service's
		}
		e.Catalog.SetRemote(r)
	}
	e.hosts.forget()
	for _, r := range was.Remotes {
		if _, still := remoteCalled(found.Remotes, r.Name); !still {
			done.Removed = append(done.Removed, r.Name)
			e.Catalog.RemoveRemote(r.Name)
		}
	}
	if len(done.Changed) > 0 { // what was listed may be another service's
		e.Catalog.Expire()
	}
	e.Catalog.LookAgain()
	return done, nil
}

// openAgain opens the remotes of now that are not in the catalogue as they are to be, or all
// or none; it notes which are new or changed.
func (e *Engine) openAgain(ctx context.Context, was, now *config.Settings, reopen string, done *control.Reloaded) ([]catalog.Remote, error) {
	o := e.opts
	o.Settings = now
	var open []catalog.Remote
	for _, r := range now.Remotes {
		before, known := remoteCalled(was.Remotes, r.Name)
		again := r.Name == reopen && e.opts.typeOf(r).Login != backends.LoginToken // those look for the login whenever they need one
		same := known && (r.Name == config.Local || sameRemote(before, r))         // local's place depends on flags, which do not change
		if same && !again && policyOf(was, before) == policyOf(now, r) {
			continue
		}
		remote, err := o.openRemote(context.WithoutCancel(ctx), r)
		if err != nil {
			closeRemotes(open)
			return nil, err
		}
		open = append(open, remote)
		switch {
		case !known:
			done.Added = append(done.Added, r.Name)
		case !same:
			done.Changed = append(done.Changed, r.Name)
		}
	}
	return open, nil
}

// live are the settings that a running mount takes up: nothing else has a copy of them.
var live = map[string]func(to, from *config.Settings){
	"hosts":           func(to, from *config.Settings) { to.Hosts = from.Hosts },
	"allow_overwrite": func(to, from *config.Settings) { to.AllowOverwrite = from.AllowOverwrite },
	"allow_delete":    func(to, from *config.Settings) { to.AllowDelete = from.AllowDelete },
	"push":            func(to, from *config.Settings) { to.Push = from.Push },
}

// takeUp returns the settings with the remotes of found and with those of its settings that
// can be taken up; it notes which differ.
func takeUp(was, found config.Settings, done *control.Reloaded) config.Settings {
	now, before, after := was, was.Values(), found.Values()
	for _, key := range slices.Sorted(maps.Keys(after)) {
		switch take := live[key]; {
		case before[key] == after[key]:
		case take != nil:
			take(&now, &found)
			done.Changed = append(done.Changed, key)
		default:
			done.Waiting = append(done.Waiting, key)
		}
	}
	now.Remotes = found.Remotes
	return now
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
	a.Origin, b.Origin, a.Origins, b.Origins = "", "", nil, nil
	return reflect.DeepEqual(a, b)
}
