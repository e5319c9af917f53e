// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"
	"io/fs"
	"slices"
	"sync"
)

// Hosts are the services on the Internet that can be used by the names of their hosts,
// without being configured. Methods may be called from many goroutines at once, but Open
// for one host at a time.
type Hosts interface {
	// Check returns nil if name is such a host. It makes no request.
	// Errors: fs.ErrInvalid for what is no host; fs.ErrNotExist, with the reason, for one
	// that may not be used.
	Check(name string) error
	// Open makes the remote of a host that Check allows. It makes no request.
	Open(name string) (Remote, error)
	// Opened returns the hosts of which something was opened, also by an earlier process.
	Opened() []string
	// Note remembers that something of a host was opened.
	Note(name string)
}

// maxHosts is how many remotes that are named by their hosts are kept. Beyond that the
// one that was not used for longest goes, and is made anew when it is needed again: who
// has it open goes on with what he has.
const maxHosts = 128

// byHost are the remotes of hosts that no configuration names, made when they are first
// needed. The zero value has none.
type byHost struct {
	in      Hosts // nil: there are none
	evicted func(name string)

	mu   sync.Mutex // guards the fields below
	made []Remote   // the one used last at the end
}

// remote returns the remote of a host, and makes it at the first call.
//
// Errors: those of Hosts.Check and Hosts.Open.
func (h *byHost) remote(name string) (Remote, error) {
	if err := h.check(name); err != nil {
		return Remote{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := slices.IndexFunc(h.made, func(r Remote) bool { return r.Name == name }); i >= 0 {
		r := h.made[i]
		h.made = append(slices.Delete(h.made, i, i+1), r)
		return r, nil
	}
	r, err := h.in.Open(name)
	if err != nil || r.Client == nil {
		return r, err
	}
	if len(h.made) >= maxHosts {
		h.evicted(h.made[0].Name)
		h.made = slices.Delete(h.made, 0, 1)
	}
	h.made = append(h.made, r)
	return r, nil
}

func (h *byHost) check(name string) error {
	if h.in == nil {
		return fmt.Errorf("%w: no host can be used by its name", fs.ErrInvalid)
	}
	return h.in.Check(name)
}

// shown returns the remotes of the hosts of which something was opened.
func (h *byHost) shown() (all []Remote) {
	if h.in == nil {
		return nil
	}
	for _, name := range h.in.Opened() {
		if r, err := h.remote(name); err == nil {
			all = append(all, r)
		}
	}
	return all
}

// opened notes that something of a host was opened, and reports whether that is new.
func (h *byHost) opened(name string) bool {
	if slices.Contains(h.in.Opened(), name) {
		return false
	}
	h.in.Note(name)
	return true
}

// Host returns the remote that a host is without being configured.
//
// Errors: those of Hosts; fs.ErrInvalid without any.
func (c *core) Host(name string) (Remote, error) { return c.hosts.remote(name) }

// HasHosts reports whether there are Options.Hosts.
func (c *core) HasHosts() bool { return c.hosts.in != nil }

// HasRemote reports whether there is a remote of that name, or a host that can be one.
// Nothing is made, and no request.
func (c *core) HasRemote(name string) bool {
	_, configured := findRemote(c.remotes.all(), name)
	return configured || c.hosts.check(name) == nil
}

// Configured returns the remote of that name if it is configured.
func (c *core) Configured(name string) (Remote, bool) {
	list := c.remotes.all()
	i, ok := findRemote(list, name)
	if !ok {
		return Remote{}, false
	}
	return list[i], true
}
