// SPDX-License-Identifier: Apache-2.0

package fsys

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache/spool"
	"github.com/sregfs/sregfs/catalog/uploads"
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
func (d *Dir) staged(name string) spool.Target {
	return spool.Target{Remote: d.remote, File: path.Join(backends.EscapePath(d.collection), d.tool, name)}
}

// stagedAt is the inverse of staged: a tool's directory begins with the first part
// that begins with a dot.
func (f *FS) stagedAt(target spool.Target) (d *Dir, name string, err error) {
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
	id  uint64 // tells drafts apart that have the inode number of one image
	ino uint64

	// turn is held while the draft is published, or its place changes. It is
	// taken before mu.
	turn chan struct{}

	mu       sync.Mutex // guards the fields below
	data     *spool.Draft
	place    place
	name     string // of the file, as it was created
	attr     Attr
	writers  map[*File]struct{}   // handles open for writing
	handles  int                  // all handles
	claims   map[uint32]time.Time // threads that were told ErrRetry, and when
	opened   bool                 // somebody had it open
	flushed  time.Time            // when a descriptor of it was closed last
	dirty    bool                 // written since it was last published
	broken   bool                 // a write failed: the data is not what was meant
	err      error
	promised bool          // closing it succeeded: its data is published, or will be
	gone     bool          // removed, or replaced by another
	same     *Image        // which may not be replaced: other bytes are refused
	idle     chan struct{} // closed when the last handle for writing is; nil if there is none
}

func (f *FS) newDraft(data *spool.Draft, p place, name string) *Draft {
	id := inode("draft", data.Info().ID)
	return &Draft{
		fs: f, id: id, ino: id, turn: make(chan struct{}, 1),
		data: data, place: p, name: name, writers: make(map[*File]struct{}),
		attr: Attr{Mode: 0o755, ModTime: time.Now()},
	}
}

// published needs mu. It reports whether the name means the image now.
func (d *Draft) published() bool { return d.promised && (d.data == nil || d.data.Published()) }

// accepted needs mu. It reports whether the draft is sealed and queued: it counts as
// published, but only we have it.
func (d *Draft) accepted() bool { return d.promised && !d.published() }

// standing returns the drafts at a place, the newest first.
func (f *FS) standing(p place) []*Draft {
	f.mu.Lock()
	all := slices.Clone(f.drafts[p])
	f.mu.Unlock()
	slices.Reverse(all)
	return slices.DeleteFunc(all, func(d *Draft) bool {
		lapsed := d.lapse()
		if lapsed {
			f.forget(d)
			d.release()
		}
		return lapsed
	})
}

// draft returns the draft that others than those who write find at a place: what
// counts as a file already, else the newest; nil if there is none.
func (f *FS) draft(p place) *Draft {
	all := f.standing(p)
	for _, d := range all {
		if d.counts() {
			return d
		}
	}
	for _, d := range all {
		if d.visible() {
			return d
		}
	}
	if len(all) > 0 {
		return all[0]
	}
	return nil
}

// draft returns the draft of that name in d, nil if there is none. Mostly nobody
// writes anything, and then the name need not be taken apart.
func (d *Dir) draft(name string) *Draft {
	if d.fs.idle() {
		return nil
	}
	return d.fs.draft(d.place(name))
}

// draftOf returns the draft of that name which the caller writes, or was told to
// look up; nil if there is none.
func (d *Dir) draftOf(name string, who Caller) *Draft {
	if d.fs.idle() {
		return nil
	}
	for _, draft := range d.fs.standing(d.place(name)) {
		if draft.writtenBy(who) {
			return draft
		}
	}
	return nil
}

// Written reports whether somebody writes a file of that name: then what it means
// depends on who asks.
func (d *Dir) Written(name string) bool {
	return !d.fs.idle() && len(d.fs.standing(d.place(name))) > 0
}

// idle reports whether there are no drafts at all.
func (f *FS) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.drafts) == 0
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

// A beginning is a file that somebody begins to write.
type beginning struct {
	in       *Dir
	name     string
	who      Caller
	excl     bool        // it must not be there
	mode     fs.FileMode // of a new file
	replaces Node        // whose inode number it has, nil if nothing's: that of a file stays when it is truncated
}

// start makes a draft for the caller and puts it in its place, beside those that
// others write there: each publishes its own, whole, and the last one stays. Of a
// temporary name there is one file, as on any disk.
func (f *FS) start(ctx context.Context, b beginning) (*Draft, error) {
	p := b.in.place(b.name)
	old := f.draft(p)
	switch {
	case old == nil:
	case b.excl && old.visible():
		return nil, fmt.Errorf("%s: %w", b.name, fs.ErrExist)
	case p.temporary && old.visible():
		return old, nil
	case old.counts() && !f.overwrites(b.in.remote):
		if err := old.wait(ctx); err != nil {
			return nil, err
		}
	}
	draft, err := f.begin(ctx, b)
	if err == nil {
		err = f.place(draft)
	}
	return draft, err
}

// begin makes a draft that has no place yet.
func (f *FS) begin(ctx context.Context, b beginning) (*Draft, error) {
	data, err := f.createData(ctx, b.in, b.name, b.excl)
	if err != nil {
		return nil, err
	}
	// Until it is opened; the journal has its mode then: what nobody may read stays so
	// through a crash.
	defer data.Idle()
	draft := f.newDraft(data, b.in.place(b.name), b.name)
	draft.same = b.in.only(ctx, data)
	if b.replaces != nil {
		draft.ino = b.replaces.Attr().Ino
	}
	mode := b.mode
	if b.replaces != nil {
		mode = b.replaces.Attr().Mode.Perm()
	}
	draft.claim(b.who)
	return draft, draft.SetAttr(ctx, AttrChange{Mode: &mode})
}

// place puts a draft in its place, and drops what nobody has open there.
func (f *FS) place(d *Draft) error {
	var err error
	for _, old := range f.put(d) {
		err = errors.Join(err, old.drop())
	}
	return err
}

// put gives a draft its place, and returns those that had it and are to be dropped:
// who is busy goes on beside it. A temporary name has one file.
func (f *FS) put(d *Draft) (old []*Draft) {
	d.mu.Lock()
	p := d.place
	d.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	var stay []*Draft
	for _, other := range f.drafts[p] {
		switch {
		case other == d:
		case !p.temporary && other.busy():
			stay = append(stay, other)
		default:
			old = append(old, other)
		}
	}
	f.drafts[p] = append(stay, d)
	return old
}

// take takes a draft from a place, if it is there.
func (f *FS) take(d *Draft, p place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := slices.DeleteFunc(f.drafts[p], func(other *Draft) bool { return other == d })
	if len(left) == 0 {
		delete(f.drafts, p)
		return
	}
	f.drafts[p] = left
}

// overwrites reports whether images of a remote can be replaced.
func (f *FS) overwrites(remote string) bool {
	r, err := f.cat.Remote(remote)
	return err == nil && r.Policy.Overwrite
}

func (f *FS) createData(ctx context.Context, d *Dir, name string, excl bool) (*spool.Draft, error) {
	if d.place(name).temporary {
		return f.uploads.Stage(d.staged(name))
	}
	ref, format, err := d.parse(name)
	if err != nil {
		return nil, err
	}
	return f.uploads.Create(ctx, uploads.Destination{Remote: d.remote, Ref: ref, Format: format, Exclusive: excl})
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

// Create makes a file and opens it for writing. The mode is what the maker's umask has
// left of it: who may not read the file then, never may, see Draft.
//
// Errors: fs.ErrExist if excl is set and the name is taken; ErrBusy; fs.ErrInvalid
// and ErrNameTooLong for a name that cannot be; backends.ErrNotAllowed in the
// root; those of catalog.Create.
func (d *Dir) Create(ctx context.Context, name string, mode fs.FileMode, who Caller, excl bool) (*Draft, *File, error) {
	if d.remote == "" {
		return nil, nil, fmt.Errorf("%w: only remotes stand here", backends.ErrNotAllowed)
	}
	if len(name) > MaxName {
		return nil, nil, ErrNameTooLong
	}
	if _, err := d.fs.writableRemote(d.remote); err != nil {
		return nil, nil, err
	}
	draft, err := d.fs.start(ctx, beginning{in: d, name: name, who: who, excl: excl, mode: mode.Perm()})
	if err != nil {
		return nil, nil, err
	}
	file, err := draft.Open(ctx, who, true, false)
	return draft, file, err
}

// Generation tells drafts apart that have one inode number.
func (d *Draft) Generation() uint64 { return d.id }

// Attr implements Node.
func (d *Draft) Attr() Attr {
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.attr
	a.Ino, a.Changes = d.ino, true
	if d.accepted() { // it counts as an image, which whoever may read it may run
		a.Mode |= a.Mode & 0o444 >> 2
	}
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
	if d.data == nil || d.promised {
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
		d.attr.Mode = max(*change.Mode&fs.ModePerm, 0o200) // 0 stands for "not set" in the journal
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
	if d.claims == nil {
		d.claims = make(map[uint32]time.Time)
	}
	d.claims[who.Thread] = time.Now()
}

// writtenBy reports whether the caller has the draft open for writing, or is to
// open it: for its process the name means the draft then.
func (d *Draft) writtenBy(who Caller) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over() {
		return false
	}
	if at, ok := d.claims[who.Thread]; ok && time.Since(at) < claimTime {
		return true
	}
	for h := range d.writers {
		if who.Process != 0 && h.opener == who.Process && d.err == nil {
			return true
		}
	}
	return false
}

// counts reports whether the draft hides an image of the same name from everybody.
func (d *Draft) counts() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.over() && (d.place.temporary || d.accepted())
}

// visible reports whether the draft is shown where no image has its name: while
// it is written, if it counts as published, or if its name is temporary. One
// that could not be published is in the journal, not in the tree: nobody shall
// take a part of an image for the whole.
func (d *Draft) visible() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.over() && (d.place.temporary || d.accepted() || len(d.writers) > 0 && d.err == nil)
}

// busy reports whether nobody else may write the file: somebody does, or what it
// holds was promised to be published and is not yet.
func (d *Draft) busy() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.over() && (len(d.writers) > 0 || d.accepted() || d.claimed() || len(d.turn) > 0)
}

// patience is how long a second writer waits for the first. The kernel tells us
// that a file was closed some time after close(2) has returned: without patience
// a copy right after one that failed would find it in use.
const patience = 2 * time.Second

// wait waits until nobody writes the file, as long as patience lasts.
// Errors: ErrBusy if somebody still does; ctx's.
func (d *Draft) wait(ctx context.Context) error {
	for deadline := time.Now().Add(patience); d.busy(); {
		if !time.Now().Before(deadline) {
			return fmt.Errorf("%s: %w", d.currentName(), ErrBusy)
		}
		d.mu.Lock()
		idle := d.idle
		d.mu.Unlock()
		// What is queued, claimed or being renamed does not tell when that is over.
		if err := d.awaitIdle(ctx, idle, min(time.Until(deadline), lookAgain)); err != nil {
			return err
		}
	}
	return nil
}

// lookAgain is how long wait waits at most before it looks again.
const lookAgain = 20 * time.Millisecond

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
	if !backends.Pause(ctx, most, idle) {
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
	return d.published(), err
}

func (d *Draft) currentName() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name
}

// claimed needs mu.
func (d *Draft) claimed() bool {
	for _, at := range d.claims {
		if time.Since(at) < claimTime {
			return true
		}
	}
	return false
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
	f.take(d, p)
	d.changed()
}
