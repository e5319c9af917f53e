// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
)

// A place is where a draft stands: its directory, and either the image that it
// will be or, for a temporary name, the name.
type place struct {
	remote, collection string
	tool               string // as Dir.tool
	name               string // of the file, if temporary; else of the image, without extension
	temporary          bool
}

// place returns where a file of that name stands in d. All names of one image
// give the same place.
func (d *Dir) place(name string) place {
	p := place{remote: d.remote, collection: d.collection, tool: d.tool, name: name}
	p.temporary = d.tool != "" || isTemporary(name)
	if ref, _, err := parseFile(name); err == nil && !p.temporary {
		p.name = ref.String()
	}
	return p
}

// change is that of what stood there under that name, or one of its others. What is
// in a tool's directory the kernel asks for each time.
func (p place) change(name string) Change {
	c := Change{Remote: p.remote, Collection: p.collection}
	switch ref, _, err := parseFile(name); {
	case p.tool != "":
	case p.temporary || err != nil:
		c.Names = []string{name}
	default:
		c.Names = namesOf(ref)
	}
	return c
}

// staged is the target of a file whose name in d is temporary.
func (d *Dir) staged(name string) cache.Target {
	return cache.Target{Remote: d.remote, File: path.Join(backends.EscapePath(d.collection), d.tool, name)}
}

// stagedAt is the inverse of staged: a tool's directory begins with the first part
// that begins with a dot.
func (f *FS) stagedAt(target cache.Target) (d *Dir, name string, err error) {
	d = &Dir{fs: f, remote: target.Remote}
	parts := strings.Split(target.File, "/")
	last := len(parts) - 1
	for i, part := range parts[:last] {
		if strings.HasPrefix(part, ".") {
			d.tool = path.Join(parts[i:last]...)
			break
		}
		plain, err := backends.UnescapePart(part)
		if err != nil {
			return nil, "", err
		}
		d.collection = join(d.collection, plain)
	}
	return d, parts[last], nil
}

// claimTime is how long a draft waits for the caller who was told ErrRetry.
const claimTime = 10 * time.Second

// AttrChange is what setattr changes; nil means not this.
type AttrChange struct {
	Size    *int64
	ModTime *time.Time
	Mode    *fs.FileMode
}

// A Draft is a file that is being written, or was and is not published.
type Draft struct {
	fs  *FS
	ino uint64

	// turn is held while the draft is published, or its place changes. It is
	// taken before mu.
	turn chan struct{}

	mu        sync.Mutex // guards the fields below
	data      *cache.Draft
	place     place
	name      string // of the file, as it was created
	attr      Attr
	writers   map[*File]struct{} // handles open for writing
	handles   int                // all handles
	claimant  uint32             // thread that was told ErrRetry, and since when
	claimedAt time.Time
	flushed   time.Time // when a descriptor of it was closed last
	dirty     bool      // written since it was last published
	broken    bool      // a write failed: the data is not what was meant
	err       error
	published bool          // the name means the image now
	accepted  bool          // sealed and queued: it counts as published, but only we have it
	gone      bool          // removed, or replaced by another
	same      *Image        // which may not be replaced: other bytes are refused
	idle      chan struct{} // closed when the last handle for writing is; nil if there is none
}

func (f *FS) newDraft(data *cache.Draft, p place, name string) *Draft {
	return &Draft{
		fs: f, ino: inode("draft", data.Info().ID), turn: make(chan struct{}, 1),
		data: data, place: p, name: name, writers: make(map[*File]struct{}),
		attr: Attr{Mode: 0o755, ModTime: time.Now()},
	}
}

// draft returns the draft at a place, nil if there is none.
func (f *FS) draft(p place) *Draft {
	f.mu.Lock()
	d := f.drafts[p]
	f.mu.Unlock()
	if d == nil || !d.lapse() {
		return d
	}
	f.forget(d)
	d.release()
	return nil
}

// draft returns the draft of that name in d, nil if there is none. Mostly nobody
// writes anything, and then the name need not be taken apart.
func (d *Dir) draft(name string) *Draft {
	d.fs.mu.Lock()
	none := len(d.fs.drafts) == 0
	d.fs.mu.Unlock()
	if none {
		return nil
	}
	return d.fs.draft(d.place(name))
}

// drafts returns what Lookup could find in d.
func (d *Dir) drafts() []*Draft {
	d.fs.mu.Lock()
	var here []place
	for p := range d.fs.drafts {
		if p.remote == d.remote && p.collection == d.collection && p.tool == d.tool {
			here = append(here, p)
		}
	}
	d.fs.mu.Unlock()
	var visible []*Draft
	for _, p := range here {
		if draft := d.fs.draft(p); draft != nil && draft.visible() {
			visible = append(visible, draft)
		}
	}
	return visible
}

// start makes a draft and puts it in its place, taking over the place of one
// that nobody has open.
func (f *FS) start(ctx context.Context, d *Dir, name string, who Caller, excl bool) (*Draft, error) {
	p := d.place(name)
	if old := f.draft(p); old != nil {
		if err := old.wait(ctx); err != nil {
			return nil, err
		}
		if excl && old.visible() {
			return nil, fmt.Errorf("%s: %w", name, fs.ErrExist)
		}
	}
	data, err := f.createData(ctx, d, name, excl)
	if err != nil {
		return nil, err
	}
	draft := f.newDraft(data, p, name)
	if target := data.Info().Target; target.Replaces == cache.OnlySame {
		draft.same, _ = d.image(ctx, target.Ref) // else publishing tells
	}
	draft.claim(who) // until it is opened: nobody else may take the place
	old, ok := f.put(draft)
	if !ok {
		draft.drop() //nolint:errcheck // it is empty, and the spool drops it later
		return nil, fmt.Errorf("%s: %w", name, ErrBusy)
	}
	if old != nil {
		return draft, old.drop()
	}
	return draft, nil
}

// put gives the draft its place, and returns who had it. It is refused while
// that one is busy.
func (f *FS) put(d *Draft) (old *Draft, ok bool) {
	d.mu.Lock()
	p := d.place
	d.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	old = f.drafts[p]
	if old == d {
		return nil, true
	}
	if old != nil && old.busy() {
		return old, false
	}
	f.drafts[p] = d
	return old, true
}

func (f *FS) createData(ctx context.Context, d *Dir, name string, excl bool) (*cache.Draft, error) {
	if d.place(name).temporary {
		return f.cat.Stage(d.staged(name))
	}
	ref, format, err := d.parse(name)
	if err != nil {
		return nil, err
	}
	return f.cat.Create(ctx, d.remote, ref, format, excl)
}

// parse reads the name of a file that is to be an image in d.
func (d *Dir) parse(name string) (backends.Ref, string, error) {
	if err := checkName(name); err != nil {
		return backends.Ref{}, "", err
	}
	ref, format, err := parseFile(name)
	if err != nil {
		return ref, "", err
	}
	if ref.Version != "" {
		return ref, "", fmt.Errorf("%w: file name %q: a version is given by the registry", fs.ErrInvalid, name)
	}
	ref.Collection = d.collection
	return ref, format, nil
}

// Create makes a file and opens it for writing.
//
// Errors: fs.ErrExist if excl is set and the name is taken; ErrBusy; fs.ErrInvalid
// and ErrNameTooLong for a name that cannot be; backends.ErrNotAllowed in the
// root; those of catalog.Create.
func (d *Dir) Create(ctx context.Context, name string, who Caller, excl bool) (*Draft, *File, error) {
	if d.remote == "" {
		return nil, nil, fmt.Errorf("%w: only remotes stand here", backends.ErrNotAllowed)
	}
	if len(name) > MaxName {
		return nil, nil, ErrNameTooLong
	}
	if _, err := d.fs.writableRemote(d.remote); err != nil {
		return nil, nil, err
	}
	draft, err := d.fs.start(ctx, d, name, who, excl)
	if err != nil {
		return nil, nil, err
	}
	file, err := draft.Open(ctx, who, true, false)
	return draft, file, err
}

// Attr implements Node.
func (d *Draft) Attr() Attr {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.attr
	a.Ino, a.Changes = d.ino, true
	if d.data != nil {
		a.Size = d.data.Size()
	}
	return a
}

// SetAttr changes size, time and permissions as for any file. A size that is set
// once the file is published is a write by whoever still has it open.
//
// Errors: the local disk's; ErrRetry for a size if nobody has.
func (d *Draft) SetAttr(ctx context.Context, change AttrChange) error {
	if change.Size != nil && *change.Size != d.Attr().Size {
		if err := d.lockData(ctx); err != nil {
			return err
		}
	} else {
		d.mu.Lock()
	}
	defer d.mu.Unlock()
	if d.data == nil || d.published || d.accepted {
		if change.Size != nil && *change.Size != d.attr.Size {
			return ErrRetry
		}
		return nil
	}
	if change.Size != nil && *change.Size != d.data.Size() {
		if err := d.truncate(*change.Size); err != nil {
			return err
		}
		if d.place.temporary && len(d.writers) == 0 { // truncate(2): nobody will close it
			if err := d.data.Keep(cut(d.data, nil)); err != nil {
				return err
			}
		}
	}
	if change.ModTime == nil && change.Mode == nil {
		return nil
	}
	if change.ModTime != nil {
		d.attr.ModTime = *change.ModTime
	}
	if change.Mode != nil {
		d.attr.Mode = *change.Mode & fs.ModePerm
	}
	return d.data.SetAttr(d.attr.ModTime, uint32(d.attr.Mode))
}

// truncate needs mu. An empty file begins anew: what went wrong before is over.
func (d *Draft) truncate(size int64) error {
	if err := d.data.Truncate(size); err != nil {
		return err
	}
	d.err, d.dirty = nil, true
	if size == 0 {
		d.broken = false
	}
	d.attr.ModTime = time.Now()
	return nil
}

// claim reserves the draft for the caller's next lookup and opening.
func (d *Draft) claim(who Caller) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.claimant, d.claimedAt = who.Thread, time.Now()
}

// shownTo reports whether the draft hides an image of the same name.
func (d *Draft) shownTo(who Caller) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over() {
		return false
	}
	return d.place.temporary || d.accepted || d.claimed() && d.claimant == who.Thread
}

// visible reports whether the draft is shown where no image has its name: while
// it is written, if it counts as published, or if its name is temporary. One
// that could not be published is in the journal, not in the tree: nobody shall
// take a part of an image for the whole.
func (d *Draft) visible() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.over() && (d.place.temporary || d.accepted || len(d.writers) > 0 && d.err == nil)
}

// busy reports whether nobody else may write the file: somebody does, or what it
// holds was promised to be published and is not yet.
func (d *Draft) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.over() && (len(d.writers) > 0 || d.accepted || d.claimed() || len(d.turn) > 0)
}

// patience is how long a second writer waits for the first. The kernel tells us
// that a file was closed some time after close(2) has returned: without patience
// a copy right after one that failed would find it in use.
const patience = 2 * time.Second

// wait waits for a writer to finish. Errors: ErrBusy if it does not; ctx's.
func (d *Draft) wait(ctx context.Context) error {
	if err := d.awaitWriters(ctx); err != nil {
		return err
	}
	if d.busy() {
		return fmt.Errorf("%s: %w", d.currentName(), ErrBusy)
	}
	return nil
}

// awaitWriters waits until nobody writes any more, as long as patience lasts.
// Errors: ctx's.
func (d *Draft) awaitWriters(ctx context.Context) error {
	d.mu.Lock()
	idle := d.idle
	d.mu.Unlock()
	if idle == nil {
		return nil
	}
	return d.awaitIdle(ctx, idle, patience)
}

func (d *Draft) awaitIdle(ctx context.Context, idle chan struct{}, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// awaitEnd waits for the end of a file of which a descriptor was just closed: when a
// container is over, its overlay is unmounted and what it wrote is published a moment
// later, and is to be there for the next one. It reports whether the file's name means
// something else now.
func (d *Draft) awaitEnd(ctx context.Context) (over bool, err error) {
	d.mu.Lock()
	idle, most := d.idle, patience-time.Since(d.flushed)
	d.mu.Unlock()
	if idle == nil || most <= 0 {
		return false, nil
	}
	err = d.awaitIdle(ctx, idle, most)
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.published, err
}

func (d *Draft) currentName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name
}

// claimed needs mu.
func (d *Draft) claimed() bool {
	return !d.claimedAt.IsZero() && time.Since(d.claimedAt) < claimTime
}

// remove drops the draft with its data; open handles keep it until they close.
func (d *Draft) remove() error {
	d.fs.forget(d)
	return d.drop()
}

// drop is remove for a draft that has lost its place.
func (d *Draft) drop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone || d.data == nil {
		return nil
	}
	d.gone = true
	err := d.data.Remove()
	if d.handles == 0 {
		err = errors.Join(err, d.data.Close())
		d.attr.Size, d.data = d.data.Size(), nil
	}
	return err
}

// forget takes the draft from its place, and tells who watches.
func (f *FS) forget(d *Draft) {
	d.mu.Lock()
	p := d.place
	d.mu.Unlock()
	f.mu.Lock()
	if f.drafts[p] == d {
		delete(f.drafts, p)
	}
	f.mu.Unlock()
	d.changed()
}
