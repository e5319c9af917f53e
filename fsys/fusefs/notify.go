// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"sync"

	gofs "github.com/hanwen/go-fuse/v2/fs"

	"github.com/sregfs/sregfs/fsys"
)

// A notifier tells the kernel what to forget.
//
// The kernel answers a notification only when it has the directory's lock, which
// it also holds while it waits for a handler of ours: telling it from a handler,
// or under a lock that a handler takes, hangs the mount (libfuse#341). So there
// is one goroutine for it, which holds nothing.
type notifier struct {
	m    *Mounted
	wake chan struct{} // of capacity 1

	mu    sync.Mutex // guards queue
	queue []fsys.Change
}

func newNotifier(m *Mounted) *notifier {
	return &notifier{m: m, wake: make(chan struct{}, 1)}
}

// add queues a change; it never blocks.
func (n *notifier) add(c fsys.Change) {
	n.mu.Lock()
	n.queue = append(n.queue, c)
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// run works the queue off until done is closed.
func (n *notifier) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-n.wake:
		}
		n.mu.Lock()
		queue := n.queue
		n.queue = nil
		n.mu.Unlock()
		for _, c := range queue {
			select {
			case <-done:
				return
			default:
				n.tell(c)
			}
		}
	}
}

// tell passes one change on. What the kernel does not know needs no telling, and
// its complaint that it does not (ENOENT) is no failure.
func (n *notifier) tell(c fsys.Change) {
	if c.Key != "" {
		for _, image := range n.m.opened.outdated(c.Key) {
			if name, parent := image.Parent(); parent != nil {
				_ = parent.NotifyEntry(name)
			}
		}
		return
	}
	dir := n.m.known(c.Path())
	if dir == nil {
		return
	}
	for _, name := range c.Names {
		_ = dir.NotifyEntry(name)
	}
}

// known returns the directory of that path if the kernel knows it.
func (m *Mounted) known(path []string) *gofs.Inode {
	dir := m.root.EmbeddedInode()
	for _, name := range path {
		if dir = dir.GetChild(name); dir == nil {
			return nil
		}
	}
	return dir
}
