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

// A notifier tells the kernel what to forget.
//
// The kernel answers a notification only when it has the directory's lock, which
// it also holds while it waits for a handler of ours: telling it from a handler,
// or under a lock that a handler takes, hangs the mount (libfuse#341). So there
// is one goroutine for it, which holds nothing.
//
// What is waiting is bounded by what the kernel can know, however many changes
// come: they are merged for each directory, and for each blob.
type notifier struct {
	m    *Mounted
	wake chan struct{} // of capacity 1

	mu      sync.Mutex // guards the fields below
	waiting waiting
	added   int           // counts the calls of later
	told    int           // those that the kernel was told of
	more    chan struct{} // closed when told grows; then another takes its place
}

type waiting struct {
	dirs   map[place]*renamed
	keys   map[cache.Key]struct{}
	drop   map[*dirNode]struct{}   // whose names the kernel shall ask for again
	unused map[*imageNode]struct{} // whose pages nobody will read
}

// A place is a directory of the tree.
type place struct{ remote, collection string }

// renamed is what changed in a directory.
type renamed struct {
	names   map[string]struct{}
	all     bool // more names than are worth telling apart
	listing bool
}

// maxNames is how many changed names of a directory are told apart.
const maxNames = 10_000

func newNotifier(m *Mounted) *notifier {
	return &notifier{m: m, wake: make(chan struct{}, 1), waiting: newWaiting(), more: make(chan struct{})}
}

func newWaiting() waiting {
	return waiting{map[place]*renamed{}, map[cache.Key]struct{}{}, map[*dirNode]struct{}{}, map[*imageNode]struct{}{}}
}

// later changes what is waiting; it never blocks.
func (n *notifier) later(change func(w *waiting)) {
	n.mu.Lock()
	change(&n.waiting)
	n.added++
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// add queues a change.
func (n *notifier) add(c fsys.Change) { n.later(func(w *waiting) { w.add(c) }) }

// drop makes the kernel forget the list of names that it keeps of a directory.
func (n *notifier) drop(d *dirNode) { n.later(func(w *waiting) { w.drop[d] = struct{}{} }) }

// unused makes the kernel forget the pages of an image.
func (n *notifier) unused(i *imageNode) { n.later(func(w *waiting) { w.unused[i] = struct{}{} }) }

func (w *waiting) add(c fsys.Change) {
	if c.Key != "" {
		w.keys[c.Key] = struct{}{}
		return
	}
	at := place{c.Remote, c.Collection}
	r := w.dirs[at]
	if r == nil {
		r = &renamed{names: map[string]struct{}{}}
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

// run works off what is waiting until done is closed.
func (n *notifier) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-n.wake:
		}
		n.mu.Lock()
		w, upTo := n.waiting, n.added
		n.waiting = newWaiting()
		n.mu.Unlock()
		n.tell(w, done)
		n.mu.Lock()
		n.told = upTo
		close(n.more)
		n.more = make(chan struct{})
		n.mu.Unlock()
	}
}

// wait returns when the kernel was told of all that was added until now, or is not
// there any more. No handler may call it: the kernel may be waiting for that one.
func (n *notifier) wait(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for wanted := n.added; n.told < wanted; {
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

// tell passes changes on, until done is closed. What the kernel does not know
// needs no telling, and its complaint that it does not (ENOENT) is no failure.
func (n *notifier) tell(w waiting, done <-chan struct{}) {
	for at, r := range w.dirs {
		change := fsys.Change{Remote: at.remote, Collection: at.collection}
		if dir := n.m.known(change.Path()); dir != nil {
			dir.tell(r, done)
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

// tell passes on what changed in a directory. Its time changes with its names only:
// what is learnt of an image is no change of the directory (tar would say so).
func (n *dirNode) tell(r *renamed, done <-chan struct{}) {
	n.told.Add(1)
	if r.listing {
		// The time comes before the notification, which makes the kernel ask for it.
		// The list of names that the kernel keeps goes by the time: were its pages
		// dropped while it is being filled, the kernel would never fill it again.
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

// affected returns the names that the kernel may believe wrong things of: files. A
// directory that is told of would lose its name for whoever is in it (getcwd), and
// what it stands for does not change: should it go, the kernel asks in a moment.
func (n *dirNode) affected(r *renamed) []string {
	names := maps.Keys(r.names)
	if r.all {
		names = maps.Keys(n.Children())
	}
	var affected []string
	for name := range names {
		if child := n.GetChild(name); child != nil && !child.IsDir() {
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
