// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"

	"github.com/sregfs/sregfs/backends"
)

// A pushState is what a Session keeps of a push.
type pushState struct {
	Repository string `json:"repository,omitempty"`
	Digest     string `json:"digest,omitempty"`
	Location   string `json:"location,omitempty"` // of the upload
	Manifest   string `json:"manifest,omitempty"` // the digest of one that may have been stored under the tag
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
