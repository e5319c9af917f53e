// SPDX-License-Identifier: Apache-2.0

package dropbox

import "time"

// A pushState is what is known of an earlier try of a push.
type pushState struct {
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
