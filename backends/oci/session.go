// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// A pushState is what a Session keeps of a push.
type pushState struct {
	Repository string `json:"repository,omitempty"`
	Digest     string `json:"digest,omitempty"`
	Location   string `json:"location,omitempty"` // of the upload
	Manifest   string `json:"manifest,omitempty"` // the digest of one that may have been stored under the tag
}

// Unsaved keeps the states of pushes without a Session for as long as this
// process lives, so that the next try does not begin at the first byte. The
// zero value is empty.
type unsaved struct {
	mu     sync.Mutex // guards the field below
	states map[string][]byte
}

// session returns the Session of the push of src to repo and tag.
func (c *client) session(repo, tag string, src backends.Source) backends.Session {
	if src.Session != nil {
		return src.Session
	}
	return &unsavedState{in: &c.unsaved, key: repo + ":" + tag + "@" + src.Digest}
}

type unsavedState struct {
	in  *unsaved
	key string
}

// Load implements backends.Session.
func (s *unsavedState) Load() []byte {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	return s.in.states[s.key]
}

// Save implements backends.Session, as far as memory goes.
func (s *unsavedState) Save(state []byte) error {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	if s.in.states == nil || len(s.in.states) >= maxKnown {
		s.in.states = map[string][]byte{}
	}
	if s.in.states[s.key] = state; state == nil {
		delete(s.in.states, s.key)
	}
	return nil
}

// loadState returns what is saved for the push of src to repo.
func loadState(repo string, src backends.Source) pushState {
	var state pushState
	if json.Unmarshal(src.Session.Load(), &state) != nil || state.Repository != repo || state.Digest != src.Digest {
		return pushState{} // nothing, or of another push
	}
	return state
}

// saveState saves state; the zero state forgets. A push goes on without it.
func (c *client) saveState(repo string, src backends.Source, state pushState) {
	var text []byte
	if state != (pushState{}) {
		state.Repository, state.Digest = repo, src.Digest
		text, _ = json.Marshal(state) // strings: cannot fail
	}
	if err := src.Session.Save(text); err != nil {
		c.log.Warn("state of an upload is not saved", "repository", repo, "digest", src.Digest, "err", err)
	}
}
