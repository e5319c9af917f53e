// SPDX-License-Identifier: Apache-2.0

package spool

import "slices"

// State is how far a draft has come: the one life of an upload, for the programs that
// write the file and for those that push it.
//
//	Create
//	  │          close, crash, failed check
//	  ▼        ┌───────────────────────────▶ Incomplete ──┐
//	Writing ───┤                                          │ Seal
//	  │        └───────────────────────────▶ Kept ────────┤
//	  │ Seal     Keep                                     │
//	  ▼                                                   │
//	Sealed ◀──────────────────────────────────────────────┘
//	  │  ▲
//	  │  └──────────── End(nil) ─────────────┐
//	  │ Begin                                │
//	  ▼                                      │
//	Publishing ──────────────────────────────┤
//	  │  ▲                                   │
//	  │  └─ Begin ── Failed ◀── End(cause) ──┤
//	  │ Source.Commit                        │
//	  ▼                                      │
//	committed ───────────────────────────────┘ in doubt until Answered
//	  │ Publish
//	  ▼
//	published
//
// A write leads back to Writing from Incomplete, Kept, Sealed and Failed. Publish also
// takes what is Sealed, Failed or Publishing, because the registry may have it already.
// Withdraw keeps a draft from entering Publishing and committed. Remove and Discard end it
// in any state: the folder goes, and so it does after Publish.
//
// After a crash a draft that was Writing is Incomplete. One that was Sealed or on its way
// is Sealed if it was to be published in the background, else Failed.
//
// The journal and Info know neither committed nor published, only Publishing: a program
// that ends then may or may not have published the draft.
type State string

// The states of a draft.
const (
	Writing    State = "writing"    // being copied in
	Incomplete State = "incomplete" // closed, or left by a crash, without being a whole image
	Kept       State = "kept"       // closed under a name that is no image's: stays until it is renamed or dropped
	Sealed     State = "sealed"     // whole, digest known, durable; not published
	Publishing State = "publishing" // on its way
	Failed     State = "failed"     // the last try to publish failed; the data is kept

	committed State = "committed" // the registry is about to be told to publish it, or was told
	published State = "published" // its registry has it
)

// from tells from which states a state is reached.
var from = map[State][]State{
	Writing:    {Incomplete, Kept, Sealed, Failed},
	Incomplete: {Writing, Kept},
	Kept:       {Writing, Incomplete},
	Sealed:     {Writing, Incomplete, Kept, Publishing, committed, Failed},
	Publishing: {Sealed, Failed, published},
	committed:  {Publishing},
	Failed:     {Sealed, Publishing, committed},
	published:  {Sealed, Failed, Publishing, committed},
}

// settled reports whether the draft is whole and durable in that state.
func (s State) settled() bool { return s.underWay() || s == Sealed || s == Failed || s == published }

// underWay reports whether a try to publish the draft is being made.
func (s State) underWay() bool { return s == Publishing || s == committed }

// stored is the state as the journal and Info have it.
func (s State) stored() State {
	if s == committed || s == published {
		return Publishing
	}
	return s
}

// mayBecome reports whether next follows on the state.
func (s State) mayBecome(next State) bool { return next == s || slices.Contains(from[next], s) }
