// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"encoding/json"
	"time"
)

// A pushState is what a Session keeps of a push.
type pushState struct {
	Path    string    `json:"path,omitempty"`
	Digest  string    `json:"digest,omitempty"`
	Session string    `json:"session,omitempty"` // of the upload
	Started time.Time `json:"started,omitzero"`
	Piece   int64     `json:"piece,omitempty"`  // size in bytes
	Stored  []byte    `json:"stored,omitempty"` // one bit for each piece
	// Hash is the content_hash of the whole. It is set when the file is about
	// to get its name, so a file that has it may be ours.
	Hash string `json:"hash,omitempty"`
}

// has reports whether the piece at off is stored. s.Piece is not 0.
func (s *pushState) has(off int64) bool {
	i := off / s.Piece
	return i/8 < int64(len(s.Stored)) && s.Stored[i/8]&(1<<(i%8)) != 0
}

func (s *pushState) set(off int64) {
	i := off / s.Piece
	for i/8 >= int64(len(s.Stored)) {
		s.Stored = append(s.Stored, 0)
	}
	s.Stored[i/8] |= 1 << (i % 8)
}

// load returns what is saved of this push.
func (p *push) load() pushState {
	var state pushState
	if json.Unmarshal(p.src.Session.Load(), &state) != nil || state.Path != p.path || state.Digest != p.src.Digest {
		return pushState{} // nothing, or of another push
	}
	return state
}

// save saves the state. A push goes on without it.
func (p *push) save() {
	p.state.Path, p.state.Digest = p.path, p.src.Digest
	text, err := json.Marshal(p.state)
	if err == nil {
		err = p.src.Session.Save(text)
	}
	if err != nil {
		p.log.Warn("state of an upload is not saved", "path", p.path, "err", err)
	}
}

// forget drops the state, here and where it is saved.
func (p *push) forget() {
	p.state = pushState{}
	if err := p.src.Session.Save(nil); err != nil {
		p.log.Warn("state of an upload is not forgotten", "path", p.path, "err", err)
	}
}
