// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"time"

	"github.com/sregfs/sregfs/backends"
)

// A Target is where a draft will be published, or where it stands as a file.
type Target struct {
	Remote   string       `json:"remote"`
	Ref      backends.Ref `json:"ref"`
	Replaces string       `json:"replaces,omitempty"` // as backends.Source.Replaces, or OnlySame
	Format   string       `json:"format,omitempty"`   // "sif", "simg", ""
	Async    bool         `json:"async,omitempty"`    // publish in the background, also after a restart
	InPlace  bool         `json:"in_place,omitempty"` // it began as an image, which is changed in place
	// File is the path, below the remote, of a file that is no image by its name, and is
	// published only when it gets another. Ref is not set then.
	File    string `json:"file,omitempty"`
	Follows string `json:"follows,omitempty"` // the draft whose publication it replaces: the same open file wrote both
}

// OnlySame as Target.Replaces: the name means an image that may not be replaced, and
// only the very bytes that it has are published, which changes nothing.
const OnlySame = "="

// Info is the journal's record of a draft.
type Info struct {
	ID       string    `json:"id"` // sorts by time of creation
	Target   Target    `json:"target"`
	State    State     `json:"state"`
	Size     int64     `json:"size"`             // bytes
	Digest   string    `json:"digest,omitempty"` // once sealed: "sha256:…"
	Stored   int64     `json:"stored"`           // bytes that the registry has acknowledged
	Created  time.Time `json:"created"`
	Changed  time.Time `json:"changed"`          // last write, or change of state
	Attempts int       `json:"attempts"`         // to publish
	Error    string    `json:"error,omitempty"`  // of the last try, or why the draft is incomplete
	ModTime  time.Time `json:"modtime,omitzero"` // set by SetAttr, else of the last write
	Mode     uint32    `json:"mode,omitempty"`   // set by SetAttr, else 0
	Version  string    `json:"-"`                // once published: as backends.Image.Version
	InDoubt  bool      `json:"-"`                // a registry was told to publish it, and did not answer
}

// Queued reports whether the draft is whole and waits to be published in the
// background: its writer was told that it is safe.
func (i Info) Queued() bool { return i.Target.Async && i.State.settled() }
