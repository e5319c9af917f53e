// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"github.com/sregfs/sregfs/catalog"
)

// An Entry is one name of a listing.
type Entry struct {
	Name string
	Ino  uint64 // of an image whose version the listing does not tell: another than Attr will show
	Dir  bool

	in     *Dir
	tool   *Dir           // if it is a tool's directory
	draft  *Draft         // if it is one
	listed catalog.Listed // else, below a remote
}

// Node returns what Lookup would return, where no registry need be asked for it;
// else nil. It is made anew with each call.
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
	}
	if img := e.listed.Image(); img.Version != "" {
		return newImage(e.in.fs, e.in.remote, img)
	}
	return nil
}
