// SPDX-License-Identifier: Apache-2.0

package mem

import "bytes"

// A node is the root of a treap: a search tree by key, a heap by prio. The
// priorities are hashes of the keys, which keeps the tree flat whatever the order
// of insertion. A node never changes once another goroutine may see it. nil
// is the empty tree.
type node struct {
	key, value  []byte
	prio        uint64
	left, right *node
}

func (n *node) find(key []byte) *node {
	for n != nil {
		switch c := bytes.Compare(key, n.key); {
		case c == 0:
			return n
		case c < 0:
			n = n.left
		default:
			n = n.right
		}
	}
	return nil
}

// with returns the tree with m in it. It takes m over.
func (n *node) with(m *node) *node {
	if n == nil {
		return m
	}
	top := *n
	switch c := bytes.Compare(m.key, n.key); {
	case c == 0:
		top.value = m.value
	case c < 0:
		top.left = n.left.with(m)
		if l := top.left; l.prio > top.prio { // l is new: it may still be turned
			top.left, l.right = l.right, &top
			return l
		}
	default:
		top.right = n.right.with(m)
		if r := top.right; r.prio > top.prio {
			top.right, r.left = r.left, &top
			return r
		}
	}
	return &top
}

// without returns the tree without key; the same tree if it has no such key.
func (n *node) without(key []byte) *node {
	if n == nil {
		return nil
	}
	top := *n
	switch c := bytes.Compare(key, n.key); {
	case c == 0:
		return join(n.left, n.right)
	case c < 0:
		top.left = n.left.without(key)
	default:
		top.right = n.right.without(key)
	}
	if top.left == n.left && top.right == n.right {
		return n
	}
	return &top
}

// join makes one tree of two, of which all keys of a are less than those of b.
func join(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.prio > b.prio:
		top := *a
		top.right = join(a.right, b)
		return &top
	default:
		top := *b
		top.left = join(a, b.left)
		return &top
	}
}

// ascend calls fn for the nodes from start on, in order, until fn returns false.
// It reports whether it came to the end.
func (n *node) ascend(start []byte, fn func(*node) bool) bool {
	if n == nil {
		return true
	}
	if bytes.Compare(n.key, start) < 0 {
		return n.right.ascend(start, fn)
	}
	return n.left.ascend(start, fn) && fn(n) && n.right.ascend(start, fn)
}
