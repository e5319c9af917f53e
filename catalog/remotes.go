// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
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
	// Guessed says that nobody has said anything of this remote: as long as it
	// cannot be reached, a search of all remotes does without it.
	Guessed bool
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

	mu      sync.Mutex   // guards the field below, and changes of list
	started func(Remote) // called for each remote whose first client comes; nil before start
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
	first := !replaced || list[at].Client == nil
	if replaced {
		list[at] = r
	} else {
		list = slices.Insert(list, at, r)
	}
	rs.list.Store(&list)
	if rs.started != nil && first {
		rs.started(r)
	}
	return replaced
}

// start has fn called for every remote that gets its first client from now on, and
// returns those that were set before.
func (rs *remotes) start(fn func(Remote)) []Remote {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.started = fn
	return rs.all()
}

// Remotes returns all remotes in the order of their names.
func (c *Catalog) Remotes() []Remote { return slices.Clone(c.remotes.all()) }

// Remote returns one remote. Errors: fs.ErrNotExist.
func (c *Catalog) Remote(name string) (Remote, error) {
	list := c.remotes.all()
	if i, ok := findRemote(list, name); ok {
		return list[i], nil
	}
	var known []string
	for _, r := range list {
		known = append(known, r.Name)
	}
	return Remote{}, backends.NotFound("no remote is named %q%s", name, backends.DidYouMean(name, known))
}

// SetRemote adds a remote, or replaces the one of its name, while others use the
// catalogue. What is under way with the client that was replaced goes on with it:
// it is not closed.
func (c *Catalog) SetRemote(r Remote) {
	if !c.remotes.set(r) {
		c.watchers.emit(Event{Kind: ListingChanged})
	}
	c.LookAgain()
}

// LookAgain forgets what registries have refused, or did not have, a moment ago.
func (c *Catalog) LookAgain() {
	c.failed.clear()
	c.absent.clear()
}

// watchRemote listens, until ctx ends or the catalogue is closed, to a service
// that tells what changed.
func (c *Catalog) watchRemote(ctx context.Context, r Remote) {
	if r.Client == nil || !r.Client.Caps().Has(backends.CanWatch) {
		return
	}
	c.tasks.start(func(own context.Context) {
		own, cancel := context.WithCancel(own)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		c.follow(own, r)
	})
}

// Live returns the remote of that name if it can be asked.
func (c *Catalog) Live(name string) (Remote, error) {
	r, err := c.Remote(name)
	if err == nil && r.Client == nil {
		return r, r.Unopened()
	}
	return r, err
}

// Unopened is why a remote without a client cannot be asked.
func (r Remote) Unopened() error {
	err := r.Err
	if err == nil {
		err = backends.ErrUnavailable
	}
	return &backends.Error{Op: "open", Remote: r.Name, Err: err}
}

// Local reports whether the remote's images are files of this machine: asking
// costs nothing, and what was put there by hand must show at once, so nothing
// of it is stored.
func (r Remote) Local() bool {
	return r.Client != nil && r.Client.Caps().Has(backends.CanOpenFile)
}

// Takes returns why ref cannot be pushed to the remote, if it cannot.
func (r Remote) Takes(ref backends.Ref) error {
	if err := r.writable(); err != nil {
		return err
	}
	err := r.Client.CheckPush(ref)
	if wrapped, ok := errors.AsType[*backends.Error](err); ok {
		return wrapped.Err // the caller says what was being done
	}
	return err
}

// writable returns backends.ErrReadOnly, with the reason, unless images can be
// pushed to the remote.
func (r Remote) writable() error {
	switch {
	case r.Client == nil:
		return r.Unopened()
	case r.Policy.ReadOnly:
		return fmt.Errorf("%w (read_only is set in its configuration)", backends.ErrReadOnly)
	case !r.Client.Caps().Has(backends.CanPush):
		return fmt.Errorf("%w: a remote of type %q takes no images", backends.ErrReadOnly, r.Type)
	}
	return nil
}
