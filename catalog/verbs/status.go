// SPDX-License-Identifier: Apache-2.0

package verbs

import (
	"cmp"
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/index"
)

// Status is the state of the remotes, the cache and the uploads.
type Status struct {
	Version string            `json:"version"`
	PID     int               `json:"pid"`
	Mount   string            `json:"mount,omitempty"`   // set by the mounting program
	Details map[string]string `json:"details,omitempty"` // set by the mounting program: passthrough …
	Remotes []RemoteStatus    `json:"remotes"`
	Cache   CacheStatus       `json:"cache"`
	Uploads []spool.Info      `json:"uploads"`
	Pushes  []Pushing         `json:"pushes"` // by "sreg push" and "sreg add", in this process
	Spool   SpoolStatus       `json:"spool"`
	Runs    []Run             `json:"runs"` // that have pinned what names mean

	Refusals []Refusal `json:"refusals,omitempty"` // set by the mounting program: the last ones, the newest at the end
}

// A Refusal is a change through the mount that was refused: the program that tried it
// got an errno only.
type Refusal struct {
	Time  time.Time `json:"time"` // the last time
	Op    string    `json:"op"`
	Path  string    `json:"path"` // below the mount point
	Errno string    `json:"errno"`
	Error string    `json:"error"`
	Count int       `json:"count"` // how often
}

// Pushing is a file of the user's that is being pushed, without a draft.
type Pushing struct {
	URI    string    `json:"uri"`
	Path   string    `json:"path"`
	Stored int64     `json:"stored"` // bytes that the service has
	Size   int64     `json:"size"`
	Since  time.Time `json:"since"`
}

// SpoolStatus is what the uploads take on this machine.
type SpoolStatus struct {
	Dir  string `json:"dir"`
	Used int64  `json:"used"` // bytes of the disk
}

// RemoteStatus is the state of one remote.
type RemoteStatus struct {
	Name   string    `json:"name"`
	Type   string    `json:"type"`
	URL    string    `json:"url,omitempty"`
	Caps   string    `json:"caps"`
	Images int       `json:"images"`          // known here
	Error  string    `json:"error,omitempty"` // the last one, if no answer followed
	Seen   time.Time `json:"seen,omitzero"`   // when it last answered
}

// CacheStatus is how full the cache is, and which transfers are under way.
type CacheStatus struct {
	Dir     string `json:"dir"`
	Used    int64  `json:"used"`
	Limit   int64  `json:"limit"`
	Blobs   int    `json:"blobs"`   // of which something is here
	Whole   int    `json:"whole"`   // of these, verified
	Partial int    `json:"partial"` // the others
	Pinned  int    `json:"pinned"`  // here or not

	Shared  []string `json:"shared,omitempty"`  // directories of other caches that are read
	Warning string   `json:"warning,omitempty"` // why it is not what the configuration says

	Transfers []Cached `json:"transfers"` // blobs that are being fetched
	Refused   []Cached `json:"refused"`   // not readable: what came did not match the digest
}

// Status reports all of that without asking any registry.
//
// Errors: those of Options.State.
func (v *Verbs) Status(ctx context.Context) (Status, error) {
	s, err := v.cat.State()
	if err != nil {
		return Status{}, err
	}
	st := Status{Version: v.version, PID: os.Getpid(), Uploads: []spool.Info{}, Pushes: v.pushes.all()}
	for _, r := range v.cat.Remotes() {
		st.Remotes = append(st.Remotes, v.remoteStatus(ctx, s.Index, r))
	}
	if s.Spool != nil {
		st.Uploads = append(st.Uploads, s.Spool.Drafts()...)
		st.Spool.Dir, st.Spool.Used = s.Spool.Usage()
	}
	st.Runs = v.runs()
	st.Cache, err = v.cacheStatus(ctx, s)
	return st, err
}

// cacheStatus looks up the names of those blobs only that are fetched or refused.
func (v *Verbs) cacheStatus(ctx context.Context, s *catalog.State) (CacheStatus, error) {
	st := CacheStatus{Transfers: []Cached{}, Refused: []Cached{}}
	if s.Cache == nil {
		return st, nil
	}
	st.Dir = s.Cache.Dir()
	st.Used, st.Limit = s.Cache.Usage()
	st.Shared, st.Warning = s.Cache.Shared(), s.Cache.Warning()
	busy := map[cache.Key]*Cached{}
	for key, b := range v.inCache(s) {
		switch b.State {
		case cache.Cached:
			st.Whole++
		case cache.Partial:
			st.Partial++
		}
		if b.Pinned {
			st.Pinned++
		}
		if b.Requests > 0 || !b.Refused.IsZero() {
			busy[key] = b
		}
	}
	st.Blobs = st.Whole + st.Partial
	if err := v.nameBlobs(ctx, s.Index, busy, func(*Cached, string, backends.Image) {}); err != nil {
		return st, err
	}
	for _, key := range slices.Sorted(maps.Keys(busy)) {
		if b := busy[key]; b.Refused.IsZero() {
			st.Transfers = append(st.Transfers, *b)
		} else {
			st.Refused = append(st.Refused, *b)
		}
	}
	return st, nil
}

func (v *Verbs) remoteStatus(ctx context.Context, s *index.Index, r catalog.Remote) RemoteStatus {
	st := RemoteStatus{Name: r.Name, Type: r.Type, URL: r.URL}
	if r.Client == nil {
		st.Error = r.Unopened().Error()
	} else {
		st.Caps = r.Client.Caps().String()
	}
	var err error
	if st.Seen, err = v.cat.Health(r.Name); err != nil {
		st.Error = err.Error()
	}
	if r.Local() {
		all := &index.Matcher{}
		err := v.imagesLocal(ctx, r, all, func(Record) bool { st.Images++; return true })
		if err != nil {
			st.Error = err.Error()
		}
		return st
	}
	for _, h := range s.Headers(r.Name) {
		st.Images += h.Count
		if h.Fetched.After(st.Seen) {
			st.Seen = h.Fetched
		}
	}
	return st
}

// pushes are the files of users that are being pushed, for status. The zero value
// has none.
type pushes struct {
	mu   sync.Mutex // guards the field below and what it leads to
	live map[*Pushing]struct{}
}

// watch adds a push until done is called, and keeps its progress.
func (p *pushes) watch(uri, path string, src *backends.Source) (done func()) {
	one := &Pushing{URI: uri, Path: path, Size: src.Size, Since: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live == nil {
		p.live = make(map[*Pushing]struct{})
	}
	p.live[one] = struct{}{}
	tell := src.Progress
	src.Progress = func(stored int64) {
		p.mu.Lock()
		one.Stored = stored
		p.mu.Unlock()
		if tell != nil {
			tell(stored)
		}
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.live, one)
	}
}

// all returns the pushes under way, the oldest first.
func (p *pushes) all() []Pushing {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Pushing, 0, len(p.live))
	for one := range p.live {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b Pushing) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.URI, b.URI))
	})
	return list
}
