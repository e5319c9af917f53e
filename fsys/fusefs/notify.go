// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/fsys"
)

// A notifier makes the kernel drop what it has cached and is not valid any more.
//
// The kernel handles a notification only when it has the directory's lock, which it also
// holds while it waits for one of our handlers. A notification from a handler, or under a
// lock that a handler takes, would hang the mount (libfuse#341). So one goroutine, which
// holds no lock, sends them all.
//
// Pending changes are merged for each directory and each blob, so their number is bounded
// by what the kernel can have cached.
type notifier struct {
	m    *Mounted
	wake chan struct{} // of capacity 1

	mu      sync.Mutex // guards the fields below
	pending pending
	added   int           // counts the calls of later
	done    int           // those that the kernel was told of
	more    chan struct{} // closed when told grows; then another takes its place
}

type pending struct {
	dirs   map[dirKey]*dirChange
	keys   map[cache.Key]struct{}
	drop   map[*dirNode]struct{}   // whose cached names are to be dropped
	unused map[*imageNode]struct{} // whose pages will not be read any more
}

// A dirKey identifies a directory of the tree.
type dirKey struct{ remote, collection string }

// A dirChange is what changed in a directory.
type dirChange struct {
	names   map[string]struct{}
	all     bool // more than maxNames
	listing bool
}

// maxNames is how many changed names of a directory are noted one by one.
const maxNames = 10_000

func newNotifier(m *Mounted) *notifier {
	return &notifier{m: m, wake: make(chan struct{}, 1), pending: newPending(), more: make(chan struct{})}
}

func newPending() pending {
	return pending{map[dirKey]*dirChange{}, map[cache.Key]struct{}{}, map[*dirNode]struct{}{}, map[*imageNode]struct{}{}}
}

// enqueue changes what is pending; it never blocks.
func (n *notifier) enqueue(change func(w *pending)) {
	n.mu.Lock()
	change(&n.pending)
	n.added++
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// add queues a change.
func (n *notifier) add(c fsys.Change) { n.enqueue(func(w *pending) { w.add(c) }) }

// dropListing makes the kernel drop its cached names of a directory.
func (n *notifier) dropListing(d *dirNode) { n.enqueue(func(w *pending) { w.drop[d] = struct{}{} }) }

// dropPages makes the kernel drop the pages of an image.
func (n *notifier) dropPages(i *imageNode) { n.enqueue(func(w *pending) { w.unused[i] = struct{}{} }) }

func (w *pending) add(c fsys.Change) {
	if c.Key != "" {
		w.keys[c.Key] = struct{}{}
		return
	}
	at := dirKey{c.Remote, c.Collection}
	r := w.dirs[at]
	if r == nil {
		r = &dirChange{names: map[string]struct{}{}}
		w.dirs[at] = r
	}
	r.listing = r.listing || c.Listing
	if r.all = r.all || len(r.names) > maxNames; r.all {
		clear(r.names)
		return
	}
	for _, name := range c.Names {
		r.names[name] = struct{}{}
	}
}

// run sends what is pending until done is closed.
func (n *notifier) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-n.wake:
		}
		n.mu.Lock()
		w, upTo := n.pending, n.added
		n.pending = newPending()
		n.mu.Unlock()
		n.notifyKernel(w, done)
		n.mu.Lock()
		n.done = upTo
		close(n.more)
		n.more = make(chan struct{})
		n.mu.Unlock()
	}
}

// wait returns when the kernel was notified of all changes that were added until now, or
// with an error when the mount is over. A handler must not call it: the kernel may be
// waiting for that handler.
func (n *notifier) wait(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for wanted := n.added; n.done < wanted; {
		more := n.more
		n.mu.Unlock()
		var err error
		select {
		case <-more:
		case <-n.m.done:
			err = errors.New("the mount is over")
		case <-ctx.Done():
			err = ctx.Err()
		}
		n.mu.Lock()
		if err != nil {
			return err
		}
	}
	return nil
}

// notifyKernel sends changes until done is closed. ENOENT from the kernel is no failure:
// it has not cached the name.
func (n *notifier) notifyKernel(w pending, done <-chan struct{}) {
	for at, r := range w.dirs {
		change := fsys.Change{Remote: at.remote, Collection: at.collection}
		if dir := n.m.known(change.Path()); dir != nil {
			dir.notifyKernel(r, done)
		}
	}
	for key := range w.keys {
		for _, image := range n.m.opened.outdated(key) {
			if image.stale() {
				_ = image.NotifyContent(0, 0)
			}
			if name, parent := image.Parent(); parent != nil {
				_ = parent.NotifyEntry(name)
			}
		}
	}
	for dir := range w.drop {
		_ = dir.NotifyContent(0, 0)
	}
	for image := range w.unused {
		_ = image.NotifyContent(0, 0)
	}
}

// notifyKernel sends the changes of a directory. The directory's time changes with its
// names only; if it changed with an image's attributes, tar would warn of a changed
// directory.
func (n *dirNode) notifyKernel(r *dirChange, done <-chan struct{}) {
	n.notified.Add(1)
	if r.listing {
		// The time is set before the notification, which makes the kernel ask for it. The
		// kernel validates its cached names by the time; if their pages were dropped
		// while it fills them, it would never fill them again.
		n.changed.Store(max(time.Now().UnixNano(), n.changed.Load()+1))
		_ = n.NotifyContent(-1, 0)
	}
	for _, name := range n.affected(r) {
		select {
		case <-done:
			return
		default:
			_ = n.NotifyEntry(name)
		}
	}
}

// affected returns the changed names that the kernel may have cached, without those of
// directories: dropping a directory's entry breaks getcwd in processes whose working
// directory it is, and its meaning does not change. If a directory was removed, the kernel
// finds out when its entry times out. Only a remote that was removed, a name in the root, is
// dropped: another service may get the name at once.
func (n *dirNode) affected(r *dirChange) []string {
	names := maps.Keys(r.names)
	if r.all {
		names = maps.Keys(n.Children())
	}
	var affected []string
	for name := range names {
		if child := n.GetChild(name); child != nil && (!child.IsDir() || n.IsRoot()) {
			affected = append(affected, name)
		}
	}
	return affected
}

// known returns the directory of that path if the kernel knows it.
func (m *Mounted) known(path []string) *dirNode {
	dir := m.root.EmbeddedInode()
	for _, name := range path {
		if dir = dir.GetChild(name); dir == nil {
			return nil
		}
	}
	n, _ := dir.Operations().(*dirNode)
	return n
}
