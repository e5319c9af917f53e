// SPDX-License-Identifier: Apache-2.0

package backends

import "strings"

// Caps is the set of a backend's capabilities.
type Caps uint

// One bit for each capability interface.
const (
	CanList Caps = 1 << iota
	CanSearch
	CanPush
	CanDelete
	CanShare
	CanWatch
	CanOpenFile
	CanMove
	CanCopy
	CanTag
	CanUntag
	CanListVersions
)

var capNames = [...]string{"list", "search", "push", "delete", "share", "watch", "file", "move", "copy", "tag", "untag", "versions"}

// CapsOf reports which capability interfaces b implements.
func CapsOf(b Backend) Caps {
	var c Caps
	set := func(ok bool, bit Caps) {
		if ok {
			c |= bit
		}
	}
	_, ok := b.(Lister)
	set(ok, CanList)
	_, ok = b.(Searcher)
	set(ok, CanSearch)
	_, ok = b.(Pusher)
	set(ok, CanPush)
	_, ok = b.(Deleter)
	set(ok, CanDelete)
	_, ok = b.(Sharer)
	set(ok, CanShare)
	_, ok = b.(Watcher)
	set(ok, CanWatch)
	_, ok = b.(FileOpener)
	set(ok, CanOpenFile)
	_, ok = b.(Mover)
	set(ok, CanMove)
	_, ok = b.(Copier)
	set(ok, CanCopy)
	_, ok = b.(Tagger)
	set(ok, CanTag)
	_, ok = b.(Untagger)
	set(ok, CanUntag)
	_, ok = b.(VersionLister)
	set(ok, CanListVersions)
	return c
}

// Has reports whether every capability of want is in c.
func (c Caps) Has(want Caps) bool { return c&want == want }

// String lists the capabilities by name, separated by commas.
func (c Caps) String() string {
	var names []string
	for i, name := range capNames {
		if c.Has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}
