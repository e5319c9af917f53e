// SPDX-License-Identifier: Apache-2.0

// Package uploads is what the pushes of several backends have in common: what is known
// of a push from one try to the next. It sends nothing itself. Start at [Recall].
package uploads

import (
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/bounded"
)

// maxUnsaved is how many states are kept.
const maxUnsaved = 256

// Unsaved keeps the states of pushes without a Session for as long as this
// process lives, so that the next try does not begin at the first byte. The
// zero value is empty.
type Unsaved struct {
	once   sync.Once // bounds states
	states bounded.Map[string, []byte]
}

// session returns the Session of src, or else one in memory for the push of
// these bytes to name.
func (u *Unsaved) session(name string, src backends.Source) backends.Session {
	if src.Session != nil {
		return src.Session
	}
	u.once.Do(func() { u.states.Max = maxUnsaved })
	return &state{in: u, key: name + "\x00" + src.Digest}
}

type state struct {
	in  *Unsaved
	key string
}

// Load implements backends.Session.
func (s *state) Load() []byte {
	text, _ := s.in.states.Get(s.key)
	return text
}

// Save implements backends.Session, as far as memory goes.
func (s *state) Save(text []byte) error {
	s.in.states.Update(s.key, func([]byte, bool) ([]byte, bool) { return text, text != nil })
	return nil
}
