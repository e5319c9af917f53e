// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/cmd/internal/config"
)

// hosts is the catalog.Hosts of an engine. Which ones were opened is kept in a file of the
// state directory, a line for each, the newest at the end: it is read without a lock, and
// written by the process that has the directory.
type hosts struct {
	engine *Engine

	mu     sync.Mutex // guards the fields below
	loaded bool
	names  []string // never changed, only replaced
}

const (
	// maxOpened is how many hosts are remembered, and listed. It is less than what the
	// catalogue keeps ready.
	maxOpened    = 64
	maxHostsFile = 64 << 10 // bytes
)

// Check implements catalog.Hosts.
func (h *hosts) Check(name string) error { return h.engine.settings.Load().Hosts.Check(name) }

// Open implements catalog.Hosts.
func (h *hosts) Open(name string) (catalog.Remote, error) {
	return h.engine.opts.openRemote(context.Background(), h.engine.opts.hostRemote(name))
}

// hostRemote is the remote that a host is without being configured: of the type that its name
// tells, else a registry as any other. It is never written to; it is asked by
// https and at public addresses only, because its name may be another's choice: whoever can
// have a path opened. Its logins are those of other tools for exactly this host.
func (o Options) hostRemote(name string) config.Remote {
	t, host, known := o.Types.At(name)
	if !known {
		t, _ = o.Types.Find(func(t backends.Type) bool { return slices.Contains(t.HostSchemes, "docker") })
	}
	url := "https://" + host
	return config.Remote{
		Name: name, Common: config.Common{Type: t.Name, ReadOnly: true}, URL: url, Config: map[string]any{"url": url},
		Origin: "the host " + name, Guessed: true, ByHost: true,
	}
}

// file is where the names are kept.
func (h *hosts) file() string { return filepath.Join(h.engine.opts.State, "hosts") }

// Opened implements catalog.Hosts.
func (h *hosts) Opened() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loadLocked()
	return h.names
}

// forget has the names read again: others may be allowed by now.
func (h *hosts) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = false
}

func (h *hosts) loadLocked() {
	if h.loaded {
		return
	}
	h.loaded = true
	text, err := backends.ReadRegular(h.file(), backends.NoFollow, maxHostsFile)
	if err != nil {
		return // they are listed again once they are opened
	}
	var names []string
	for name := range strings.Lines(string(text)) {
		if name = strings.TrimSpace(name); h.Check(name) == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	h.names = names[max(0, len(names)-maxOpened):]
}

// Note implements catalog.Hosts.
func (h *hosts) Note(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded = false // another process may have had the directory since it was read
	h.loadLocked()
	names := append(slices.DeleteFunc(slices.Clone(h.names), func(n string) bool { return n == name }), name)
	h.names = names[max(0, len(names)-maxOpened):]
	text := strings.Join(h.names, "\n") + "\n"
	if err := disk.Replace(h.file(), []byte(text), disk.Replacement{Perm: 0o600}); err != nil {
		h.engine.opts.Log.Warn("the hosts that were opened could not be noted", "err", err)
	}
}
