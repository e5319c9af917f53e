// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"slices"
	"sync"

	"github.com/sregfs/sregfs/cache"
)

// openedImages has the nodes of images that were opened, by inode number: the kernel may
// have several generations of one. The zero value is ready.
type openedImages struct {
	mu    sync.Mutex // guards nodes
	nodes map[uint64][]*imageNode
}

func (o *openedImages) add(n *imageNode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nodes == nil {
		o.nodes = make(map[uint64][]*imageNode)
	}
	if ino := n.StableAttr().Ino; !slices.Contains(o.nodes[ino], n) {
		o.nodes[ino] = append(o.nodes[ino], n)
	}
}

func (o *openedImages) forget(n *imageNode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ino := n.StableAttr().Ino
	left := slices.DeleteFunc(o.nodes[ino], func(other *imageNode) bool { return other == n })
	if len(left) == 0 {
		delete(o.nodes, ino)
		return
	}
	o.nodes[ino] = left
}

// generation returns the generation of that inode for a lookup: the newest that the
// kernel has, or the next one if that cannot be opened any more.
func (o *openedImages) generation(ino uint64) uint64 {
	o.mu.Lock()
	var newest *imageNode
	for _, n := range o.nodes[ino] {
		if newest == nil || n.gen > newest.gen {
			newest = n
		}
	}
	o.mu.Unlock()
	switch {
	case newest == nil:
		return firstGeneration
	case newest.outdated():
		return newest.gen + 1
	}
	return newest.gen
}

// outdated returns the inodes with that key that must not be opened again.
func (o *openedImages) outdated(key cache.Key) []*imageNode {
	o.mu.Lock()
	var all []*imageNode
	for _, nodes := range o.nodes {
		for _, n := range nodes {
			if n.image.Key() == key {
				all = append(all, n)
			}
		}
	}
	o.mu.Unlock()
	old := all[:0]
	for _, n := range all {
		if n.outdated() {
			old = append(old, n)
		}
	}
	return old
}
