// SPDX-License-Identifier: Apache-2.0

package uploads

import (
	"encoding/json"
	"log/slog"

	"github.com/sregfs/sregfs/backends"
)

// A Memo is what a backend knows of one push from one try to the next: State,
// which it may change and then Save. For one goroutine at a time.
type Memo[S any] struct {
	State S

	about   memo[S]
	session backends.Session
	log     *slog.Logger
}

// A memo is the JSON in a Session.
type memo[S any] struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	State  S      `json:"state"`
}

// Recall returns what an earlier try of a push of src to name has saved, in
// src.Session or, if src has none, in u. If nothing is, or of another push only,
// State is zero.
func Recall[S any](u *Unsaved, name string, src backends.Source, log *slog.Logger) *Memo[S] {
	m := &Memo[S]{about: memo[S]{Name: name, Digest: src.Digest, Size: src.Size}, session: u.session(name, src), log: log}
	var old memo[S]
	if json.Unmarshal(m.session.Load(), &old) == nil && old.Name == name && old.Digest == src.Digest && old.Size == src.Size {
		m.State = old.State
	}
	return m
}

// Save keeps State. A push goes on without it: an error is only logged.
func (m *Memo[S]) Save() {
	m.about.State = m.State
	text, err := json.Marshal(m.about)
	if err == nil {
		err = m.session.Save(text)
	}
	if err != nil {
		m.log.Warn("the state of an upload is not saved", "image", m.about.Name, "digest", m.about.Digest, "err", err)
	}
}

// Forget makes State zero, also where it is saved. Errors are logged.
func (m *Memo[S]) Forget() {
	var none S
	m.State = none
	if err := m.session.Save(nil); err != nil {
		m.log.Warn("the state of an upload is not forgotten", "image", m.about.Name, "digest", m.about.Digest, "err", err)
	}
}
