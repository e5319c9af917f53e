// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"github.com/sregfs/sregfs/catalog"
)

// An Entry is one name of a listing.
type Entry struct {
	Name string
	Ino  uint64 // not that of Attr for an image whose version the listing does not tell
	Dir  bool

	in     *Dir
	tool   *Dir           // if it is a tool's directory
	draft  *Draft         // if it is one
	listed catalog.Listed // else, below a remote
	other  bool           // it is that in another form
}

// Node returns what Lookup would return, or nil if that needs a request. Each call makes
// a new node.
func (e *Entry) Node() Node {
	switch {
	case e.tool != nil:
		return e.tool
	case e.Dir && e.in.remote == "":
		return &Dir{fs: e.in.fs, remote: e.Name}
	case e.Dir:
		return &Dir{fs: e.in.fs, remote: e.in.remote, collection: e.listed.Collection}
	case e.draft != nil:
		return e.draft
	case e.other:
		return nil
	}
	if img := e.listed.Image(); img.Version != "" {
		return newImage(e.in.fs, e.in.remote, img)
	}
	return nil
}
