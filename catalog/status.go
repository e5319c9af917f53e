// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"os"
	"time"

	"github.com/sregfs/sregfs/cache"
)

// Status is how things stand.
type Status struct {
	Version string            `json:"version"`
	PID     int               `json:"pid"`
	Mount   string            `json:"mount,omitempty"`   // set by the mounting program
	Details map[string]string `json:"details,omitempty"` // set by the mounting program: passthrough …
	Remotes []RemoteStatus    `json:"remotes"`
	Cache   CacheStatus       `json:"cache"`
	Uploads []cache.DraftInfo `json:"uploads"`
}

// RemoteStatus is how one remote stands.
type RemoteStatus struct {
	Name   string    `json:"name"`
	Type   string    `json:"type"`
	URL    string    `json:"url,omitempty"`
	Caps   string    `json:"caps"`
	Images int       `json:"images"`          // known here
	Error  string    `json:"error,omitempty"` // the last one, if nothing has worked since
	Seen   time.Time `json:"seen,omitzero"`   // when it last answered
}

// CacheStatus is how full the cache is.
type CacheStatus struct {
	Dir   string `json:"dir"`
	Used  int64  `json:"used"`
	Limit int64  `json:"limit"`
	Blobs int    `json:"blobs"`
}

// Status reports how things stand, without asking any registry.
//
// Errors: those of Options.State.
func (c *Catalog) Status(ctx context.Context) (Status, error) {
	s, err := c.open()
	if err != nil {
		return Status{}, err
	}
	st := Status{Version: c.opts.Version, PID: os.Getpid(), Uploads: []cache.DraftInfo{}}
	for _, r := range c.remotes {
		st.Remotes = append(st.Remotes, c.remoteStatus(ctx, s.Store, r))
	}
	if s.Spool != nil {
		st.Uploads = append(st.Uploads, s.Spool.Drafts()...)
	}
	if s.Cache != nil {
		st.Cache.Dir = s.Cache.Dir()
		st.Cache.Used, st.Cache.Limit = s.Cache.Usage()
		for range s.Cache.Infos() {
			st.Cache.Blobs++
		}
	}
	return st, nil
}

func (c *Catalog) remoteStatus(ctx context.Context, s Store, r Remote) RemoteStatus {
	st := RemoteStatus{Name: r.Name, Type: r.Type, URL: r.URL}
	if r.Client == nil {
		st.Error = r.unopened().Error()
	} else {
		st.Caps = r.Client.Caps().String()
	}
	if h := c.health.of(r.Name); h.err != nil {
		st.Error = h.err.Error()
		st.Seen = h.seen
	} else {
		st.Seen = h.seen
	}
	if r.atHand() {
		all := &matcher{}
		err := c.imagesAtHand(ctx, r, all, func(Record) bool { st.Images++; return true })
		if err != nil {
			st.Error = err.Error()
		}
		return st
	}
	for _, h := range headers(s, r.Name) {
		st.Images += h.count
		if h.fetched.After(st.Seen) {
			st.Seen = h.fetched
		}
	}
	return st
}
