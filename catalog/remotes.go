// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sregfs/sregfs/backends"
)

// A Remote is one configured registry.
type Remote struct {
	Name   string
	Type   string           // key in backends/all
	URL    string           // for display and to match a host; may be ""
	Client *backends.Client // nil if the backend could not be opened
	Err    error            // why not
	Policy Policy
	// Guessed says that the remote is in no configuration: a search of all remotes
	// leaves it out while it cannot be reached.
	Guessed bool
	// ByHost says that it is a host that no configuration names: it is made when it is
	// needed, and only read.
	ByHost bool
}

// A Policy says what the configuration allows on a remote beyond reading.
type Policy struct {
	ReadOnly  bool // no writes at all
	Overwrite bool // a published tag may be replaced
	Delete    bool // an image may be deleted through the mount
	Async     bool // close(2) returns once the file is durable here
}

// remotes are the configured registries in the order of their names. The zero
// value has none.
type remotes struct {
	list atomic.Pointer[[]Remote] // replaced, never changed

	mu      sync.Mutex                 // guards the fields below, and changes of list
	started func(Remote) (stop func()) // called for each remote that gets a client; nil before start
	stops   map[string]func()          // what started returned, by the name of the remote
}

// all returns the remotes in the order of their names, not to be changed.
func (rs *remotes) all() []Remote {
	if list := rs.list.Load(); list != nil {
		return *list
	}
	return nil
}

func findRemote(list []Remote, name string) (at int, found bool) {
	return slices.BinarySearchFunc(list, name, func(r Remote, name string) int { return strings.Compare(r.Name, name) })
}

// set adds a remote, or replaces the one of its name.
func (rs *remotes) set(r Remote) (replaced bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	list := slices.Clone(rs.all())
	at, replaced := findRemote(list, r.Name)
	same := replaced && list[at].Client == r.Client
	if replaced {
		list[at] = r
	} else {
		list = slices.Insert(list, at, r)
	}
	rs.list.Store(&list)
	if !same {
		rs.follow(r)
	}
	return replaced
}

// remove takes a remote away.
func (rs *remotes) remove(name string) (removed bool) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	list := slices.Clone(rs.all())
	at, found := findRemote(list, name)
	if found {
		list = slices.Delete(list, at, at+1)
		rs.list.Store(&list)
		rs.follow(Remote{Name: name})
	}
	return found
}

// follow stops what was started for the remote of that name, and starts it for r. Called
// with rs.mu held.
func (rs *remotes) follow(r Remote) {
	if stop := rs.stops[r.Name]; stop != nil {
		stop()
		delete(rs.stops, r.Name)
	}
	if rs.started != nil && r.Client != nil {
		rs.stops[r.Name] = rs.started(r)
	}
}

// start has fn called for each remote with a client, now and when it gets another one. What
// fn returns is called when the remote or its client is replaced or removed.
func (rs *remotes) start(fn func(Remote) (stop func())) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.started, rs.stops = fn, map[string]func(){}
	for _, r := range rs.all() {
		rs.follow(r)
	}
}

// Unopened returns why a remote without a client cannot be asked.
func (r Remote) Unopened() error {
	err := r.Err
	if err == nil {
		err = backends.ErrUnavailable
	}
	return &backends.Error{Op: "open", Remote: r.Name, Err: err}
}

// Local reports whether the remote's images are files of this machine: asking
// costs nothing, and files that were put there by hand appear at once, so that nothing
// of it is stored.
func (r Remote) Local() bool {
	return r.Client != nil && r.Client.Caps().Has(backends.CanOpenFile)
}

// InPlace reports whether the bytes of an image of the remote are a file of this machine,
// which is read where it lies. Those of a Local remote are, but for what it knows by its
// URL only.
func (r Remote) InPlace(img backends.Image) bool {
	return r.Local() && !strings.HasPrefix(img.URL, "http")
}

// Takes returns why ref cannot be pushed to the remote, if it cannot.
func (r Remote) Takes(ref backends.Ref) error {
	if err := r.writable(); err != nil {
		return err
	}
	err := r.Client.CheckPush(ref)
	if wrapped, ok := errors.AsType[*backends.Error](err); ok {
		return wrapped.Err // the caller adds the operation
	}
	return err
}

// ReadOnly returns backends.ErrReadOnly, with the reason, if nothing may be written whatever
// the service can do.
func (r Remote) ReadOnly() error {
	switch {
	case r.ByHost:
		return fmt.Errorf("%w: %s is in no configuration, and hosts are only read by their names (to push there: sreg remote add)", backends.ErrReadOnly, r.Name)
	case r.Policy.ReadOnly:
		return fmt.Errorf("%w (read_only is set in its configuration)", backends.ErrReadOnly)
	}
	return nil
}

// writable returns backends.ErrReadOnly, with the reason, unless images can be
// pushed to the remote.
func (r Remote) writable() error {
	readOnly := r.ReadOnly()
	switch {
	case r.Client == nil:
		return r.Unopened()
	case readOnly != nil:
		return readOnly
	case !r.Client.Caps().Has(backends.CanPush):
		return fmt.Errorf("%w: a remote of type %q takes no images", backends.ErrReadOnly, r.Type)
	}
	return nil
}
