// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"sync"

	"github.com/sregfs/sregfs/cache"
)

// opened knows the images whose mode is decided: of each inode number the
// newest generation. The zero value is ready.
type opened struct {
	mu    sync.Mutex // guards nodes
	nodes map[uint64]*imageNode
}

func (o *opened) add(n *imageNode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.nodes == nil {
		o.nodes = make(map[uint64]*imageNode)
	}
	ino := n.StableAttr().Ino
	if old := o.nodes[ino]; old == nil || old.gen <= n.gen {
		o.nodes[ino] = n
	}
}

func (o *opened) forget(n *imageNode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ino := n.StableAttr().Ino; o.nodes[ino] == n {
		delete(o.nodes, ino)
	}
}

// generation returns the generation in which a lookup shall return that inode.
func (o *opened) generation(ino uint64) uint64 {
	o.mu.Lock()
	n := o.nodes[ino]
	o.mu.Unlock()
	switch {
	case n == nil:
		return firstGen
	case n.outdated():
		return n.gen + 1
	}
	return n.gen
}

// outdated returns the inodes of those bytes that shall not be opened again.
func (o *opened) outdated(key cache.Key) []*imageNode {
	o.mu.Lock()
	var all []*imageNode
	for _, n := range o.nodes {
		if n.image.Key() == key {
			all = append(all, n)
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
