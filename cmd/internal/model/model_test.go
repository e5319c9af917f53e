// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A version is what a name means in a registry. Versions are told apart by address.
type version struct {
	data     []byte
	private  bool      // nobody but the owner may read it: local only
	anyMode  bool      // of a copy to a name that the mount may not have known
	from, to time.Time // its time lies between; zero where nobody promised any
}

// A draft is a file that somebody writes, or wrote and which no registry has.
type draft struct {
	name
	data     []byte
	private  bool
	from, to time.Time       // of the last write, or what was set
	writers  map[*file]bool  // open files for writing
	dirty    bool            // written since it was last published
	broken   bool            // a write failed
	err      string          // what close and rename give until it is written again
	cutOff   bool            // the daemon was killed while it was written
	refused  bool            // to be renamed to an image's name
	excl     bool            // made by O_EXCL
	inPlace  bool            // begun as a copy of the image
	same     *version        // which may not be replaced: only the same may be published
	base     *version        // what the name meant when the draft was begun, or since, by this mount
	touched  bool            // somebody else moved the name since
	unsure   bool            // of what the name means: sreg or a rename moved it, or somebody else did before
	mine     *version        // what this file has published
	accepted bool            // close returned 0 with async: published behind our back
	over     bool            // published, removed or replaced: the name means something else
	states   map[string]bool // of one that is left: what "sreg uploads ls" may say; "" is nothing
}

// A file is an open file of a client, of one draft or one version.
type file struct {
	client  string
	draft   *draft
	may     []*version // the versions that it can be of, until a read tells
	remote  string
	write   bool
	reads   bool
	fds     int
	closing bool // its client closed a descriptor, and nobody wrote since
}

// A model is what the documents promise, of everything that an operation can see.
type model struct {
	settings
	truth    map[string]*version   // what the registries have, by key
	loose    map[string][]*version // what the mount may take a name for besides, since others changed it; nil: for nothing
	standing []*draft              // in the tree, the oldest first
	left     []*draft              // in the spool only
	fds      map[string]*file      // by client and handle
	dirs     map[string]string     // "yes", "no" or "maybe"
	here     map[[32]byte]bool     // what the cache has whole
	tainted  map[[32]byte]bool     // what the registry lied about
	unlisted map[string]bool       // keys that others moved: a listing may be older than a look
	pending  map[string]bool       // keys that are published in the background
	ending   string                // key of a file that was closed and not published: the daemon learns of its end after close(2)
	fault    string
}

func newModel(s settings) *model {
	return &model{
		settings: s, truth: map[string]*version{}, loose: map[string][]*version{}, fds: map[string]*file{},
		dirs: map[string]string{}, here: map[[32]byte]bool{}, tainted: map[[32]byte]bool{}, pending: map[string]bool{}, unlisted: map[string]bool{},
	}
}

func (m *model) overwrites(remote string) bool { return remote == "local" || m.overwrite }

// troubled reports whether a remote is away, and troubles are what may be said then.
func (m *model) troubled(remote string) bool { return remote == "lab" && m.fault == "away" }

var troubles = []string{"EHOSTDOWN", "ETIMEDOUT"}

func want(r result, allowed ...string) error {
	if slices.Contains(allowed, r.Err) {
		return nil
	}
	return fmt.Errorf("got %v\nwant %q", r, allowed)
}

// wantOr is want, where the remote may be away.
func (m *model) wantOr(remote string, r result, allowed ...string) error {
	if m.troubled(remote) {
		allowed = append(allowed, troubles...)
		if m.async { // a name that was not listed counts as free
			allowed = append(allowed, "ENOENT")
		}
	}
	return want(r, allowed...)
}

// at returns the drafts at a key, the newest first.
func (m *model) at(key string) (all []*draft) {
	for _, d := range slices.Backward(m.standing) {
		if d.key == key {
			all = append(all, d)
		}
	}
	return all
}

func (m *model) take(d *draft) {
	m.standing = slices.DeleteFunc(m.standing, func(o *draft) bool { return o == d })
}

// meanings returns what a name may mean to the mount, in a registry: the truth first.
func (m *model) meanings(key string) []*version {
	return append([]*version{m.truth[key]}, m.loose[key]...)
}

// view returns what a name means to a client, "" for nobody in particular: a draft, or else
// one of the versions, of which nil is none.
func (m *model) view(client string, n name) (*draft, []*version) {
	all := m.at(n.key)
	for _, d := range all {
		for f := range d.writers {
			if f.client != client || d.err != "" {
				continue
			}
			if d.spelled != n.spelled && !n.temporary { // the kernel may still have the image under the other name
				return d, m.meanings(n.key)
			}
			return d, nil
		}
	}
	for _, d := range all {
		if d.temporary || d.accepted {
			return d, nil
		}
	}
	if n.temporary {
		return nil, []*version{nil}
	}
	vs := m.meanings(n.key)
	if vs[0] == nil || slices.Contains(vs, nil) {
		for _, d := range all {
			if d.visible() {
				return d, vs
			}
		}
	}
	return nil, vs
}

func (d *draft) visible() bool { return d.temporary || d.accepted || len(d.writers) > 0 && d.err == "" }

// learn narrows what the mount takes a name for: what it has shown is not taken back.
func (m *model) learn(key string, v *version) {
	if v == m.truth[key] {
		delete(m.loose, key)
	}
}

// changed notes that somebody else moved a name.
func (m *model) changed(key string, v *version) {
	if old := m.truth[key]; !slices.Contains(m.loose[key], old) {
		m.loose[key] = append(m.loose[key], old)
	}
	m.truth[key] = v
	m.unlisted[key] = true
	for _, d := range m.standing {
		d.touched = d.touched || d.key == key
	}
	if dir := parseName(key + ".sif").dir; m.dirs[dir] != "yes" || v == nil && len(m.names(dir, nil)) == 0 {
		m.dirs[dir] = "maybe"
	}
}

// own notes that a name was moved through the mount or by sreg.
func (m *model) own(key string, v *version, by *draft) {
	m.truth[key] = v
	delete(m.loose, key)
	delete(m.unlisted, key)
	n := parseName(key + ".sif")
	m.dirs[n.dir] = "yes"
	if by != nil && n.remote == "lab" && !m.async { // what was copied in is in the cache; what sreg pushes is not
		m.here[sha256.Sum256(v.data)] = true
	}
	for _, d := range m.standing {
		if d.key == key && d != by {
			if by == nil || d.touched { // begun beside what others took away since
				d.unsure = true
			} else {
				d.base = v
			}
		}
	}
}

// publish checks what publishing a draft came to.
func (m *model) publish(d *draft, r result) error {
	kind := kindOf(d.data)
	if kind == isWhole || kind == isStrange && r.Err != "EIO" && r.Err != "EINVAL" { // a newer whole copy replaces one that failed
		m.dropLeft(d.key, "failed")
	}
	if err := want(r, m.mayPublish(d, kind)...); err != nil {
		return err
	}
	if d.err = r.Err; r.Err != "" {
		return nil
	}
	cur, known := m.truth[d.key], len(m.loose[d.key]) == 0
	if cur == nil || !bytes.Equal(cur.data, d.data) {
		known = true
		cur = &version{data: bytes.Clone(d.data), private: d.private && d.remote == "local", anyMode: d.unsure && d.remote == "local", from: d.from, to: d.to}
	}
	if m.own(d.key, cur, d); !known && d.remote == "lab" {
		m.dirs[d.dir] = "maybe" // see "What it does not hold yet" in decision 80
	}
	d.dirty, d.mine = false, cur
	if m.async && d.remote == "lab" {
		d.accepted, m.pending[d.key] = true, true
		m.take(d)
		m.standing = append(m.standing, d)
		return nil
	}
	d.over = true
	m.take(d)
	return nil
}

// dropLeft drops what is left of a name in one state.
func (m *model) dropLeft(key, state string) {
	m.left = slices.DeleteFunc(m.left, func(d *draft) bool {
		if d.key != key || !d.states[state] {
			return false
		}
		d.states[""] = true // for good if it can be in no other state
		return len(d.states) == 2
	})
}

// mayPublish returns what publishing a draft may come to.
func (m *model) mayPublish(d *draft, kind string) []string {
	cur := m.truth[d.key]
	switch {
	case kind == isOther:
		return []string{"EINVAL"}
	case kind == isPart:
		return []string{"EIO"}
	case kind == isStrange:
		return []string{"EINVAL", "EIO", "", "EPERM", "EEXIST", "ESTALE", "EHOSTDOWN", "ETIMEDOUT"}
	case m.async && d.remote == "lab":
		return []string{""}
	case m.troubled(d.remote):
		return troubles
	case cur != nil && bytes.Equal(cur.data, d.data):
		return []string{""}
	case d.unsure:
		return []string{"", "ESTALE", "EEXIST", "EPERM"}
	case d.mine != nil && cur == nil, d.touched && cur == nil:
		return []string{"", "ESTALE", "ENOENT"}
	case d.mine != nil:
		if cur == d.mine {
			return []string{""}
		}
		return []string{"ESTALE"}
	case cur == nil:
		return []string{""}
	case d.touched && d.same != nil:
		return []string{"EPERM", "ESTALE"}
	case d.touched && d.base == nil:
		return []string{"EEXIST", "ESTALE"}
	case d.touched && m.overwrites(d.remote):
		return []string{"ESTALE"}
	case d.same != nil:
		return []string{"EPERM"}
	case !m.overwrites(d.remote):
		return []string{"EEXIST"}
	case d.excl:
		return []string{"", "EEXIST"}
	}
	return []string{""}
}

func (d *draft) due() bool {
	return d.dirty && d.err == "" && !d.over && !d.accepted && !d.temporary && len(d.data) > 0
}

// closeOne checks a close(2) of one of the descriptors of an open file.
func (m *model) closeOne(f *file, r result) error {
	err := m.flush(f, r)
	if f.fds--; f.fds > 0 || !f.write {
		return err
	}
	d := f.draft
	delete(d.writers, f)
	if len(d.writers) > 0 || d.over || d.accepted {
		return err
	}
	if m.ending = d.key; d.temporary {
		return err
	}
	m.take(d)
	d.over = true
	if d.dirty && len(d.data) > 0 && !d.broken {
		d.states = map[string]bool{"failed": true}
		if k := kindOf(d.data); k == isPart || k == isOther {
			d.states = map[string]bool{"incomplete": true}
		} else if k == isStrange {
			d.states["incomplete"] = true
		}
		m.left = append(m.left, d)
	}
	return err
}

func (m *model) flush(f *file, r result) error {
	if !f.write {
		return want(r, "")
	}
	d := f.draft
	f.closing = true
	closed := true
	for other := range d.writers {
		closed = closed && other.closing
	}
	switch {
	case d.err != "":
		return want(r, d.err)
	case closed && d.same != nil && !d.temporary && !d.over && len(d.data) == 0:
		if d.unsure { // the mount may not know of it
			return want(r, "EPERM", "")
		}
		return want(r, "EPERM")
	case closed && d.due():
		return m.publish(d, r)
	}
	return want(r, "")
}

// begin makes a draft and opens it.
func (m *model) begin(client string, n name, flag string) *file {
	d := &draft{name: n, writers: map[*file]bool{}, private: flag == "W", excl: flag == "x"}
	if !n.temporary {
		d.base = m.truth[n.key]
		m.dropLeft(n.key, "incomplete")
	}
	if len(m.loose[n.key]) > 0 && !n.temporary && (m.async && m.troubled(n.remote) || slices.Contains(m.meanings(n.key), nil)) {
		d.unsure = true // the mount may take the name for what it was
		for _, v := range m.loose[n.key] {
			if d.base == nil {
				d.base = v
			}
		}
	}
	if d.base != nil {
		d.private = d.base.private
		if !m.overwrites(n.remote) {
			d.same = d.base
		}
	}
	m.standing = append(m.standing, d)
	return m.share(client, d, flag, result{})
}

// share opens a draft that is there.
func (m *model) share(client string, d *draft, flag string, r result) *file {
	f := &file{client: client, draft: d, remote: d.remote, write: flag != "r", reads: flag == "r" || flag == "u" || flag == "x"}
	if f.write {
		d.writers[f] = true
		if (flag == "w" || flag == "W") && len(d.data) > 0 {
			d.data, d.err, d.broken, d.dirty = nil, "", false, true
			d.from, d.to = r.From, r.To
		}
	}
	return f
}

// wrote notes that a draft was changed: what it had published it goes on from in a copy.
func (m *model) wrote(f *file, r result) {
	d := f.draft
	if d.mine != nil && (d.over || d.accepted) && !slices.Contains(m.left, d) {
		d.over, d.accepted, d.same = false, false, nil
		m.take(d)
		m.standing = append(m.standing, d)
	}
	d.dirty, d.from, d.to = true, r.From, r.To
}

func (m *model) write(f *file, r result, p []byte, off int64) error {
	d := f.draft
	if len(p) == 0 {
		return want(r, "")
	}
	if d.same != nil && !d.temporary && !d.over && off < 4096 {
		head := p[:min(int64(len(p)), 4096-off)]
		old := d.same.data[min(off, int64(len(d.same.data))):]
		if !bytes.Equal(head, old[:min(len(head), len(old))]) {
			allowed := []string{"EPERM"}
			if m.fault != "" || d.unsure { // what it would replace cannot be read
				allowed = append(allowed, "")
			}
			if err := want(r, allowed...); err != nil || r.Err != "" {
				d.broken, d.err, d.dirty, f.closing = true, r.Err, true, false
				return err
			}
		}
	}
	if err := want(r, ""); err != nil {
		return err
	}
	m.wrote(f, r)
	f.closing = false
	if !d.broken {
		d.err = ""
	}
	if end := off + int64(len(p)); end > int64(len(d.data)) {
		d.data = append(d.data, make([]byte, end-int64(len(d.data)))...)
	}
	copy(d.data[off:], p)
	return nil
}

func (m *model) truncate(f *file, r result, size int64) error {
	if err := want(r, ""); err != nil {
		return err
	}
	d := f.draft
	if size == int64(len(d.data)) {
		return nil
	}
	m.wrote(f, r)
	d.err = ""
	d.broken = d.broken && size > 0
	d.data = append(d.data, make([]byte, max(size-int64(len(d.data)), 0))...)[:size]
	return nil
}

func cut(data []byte, off, n int64) []byte {
	size := int64(len(data))
	return data[min(off, size):min(off+n, size)]
}

// read checks what was read of an open file.
func (m *model) read(f *file, r result, off, n int64) error {
	if d := f.draft; d != nil && (r.Err == "" || !d.accepted) {
		if err := want(r, ""); err != nil {
			return err
		}
		return equal(r.Data, cut(d.data, off, n))
	} else if d != nil { // published behind our back, and read from the registry
		f = &file{remote: f.remote, may: []*version{m.truth[d.key]}}
	}
	var right []*version
	var differs error
	for _, v := range f.may {
		full := cut(v.data, off, n)
		if r.Err != "" {
			full = full[:min(len(r.Data), len(full))]
		}
		if err := equal(r.Data, full); err != nil {
			differs = err
			continue
		}
		right = append(right, v)
	}
	if len(right) == 0 {
		return fmt.Errorf("%w, and as none of %d versions", differs, len(f.may))
	}
	if f.may = right; r.Err == "" {
		if len(right) == 1 && len(r.Data) > 0 {
			m.here[sha256.Sum256(right[0].data)] = f.remote == "lab"
		}
		return nil
	}
	return want(r, m.mayFail(f)...)
}

// mayFail returns with what reading a version may fail.
func (m *model) mayFail(f *file) (allowed []string) {
	for _, v := range f.may {
		sum := sha256.Sum256(v.data)
		if m.here[sum] {
			continue
		}
		if m.troubled(f.remote) {
			allowed = append(allowed, troubles...)
		}
		if f.remote == "lab" && m.fault == "lie" || m.tainted[sum] {
			m.tainted[sum] = true
			allowed = append(allowed, "EIO")
		}
		if !m.current(v) {
			allowed = append(allowed, "ESTALE", "ENOENT")
		}
	}
	return allowed
}

func (m *model) current(v *version) bool {
	for _, t := range m.truth {
		if t == v {
			return true
		}
	}
	return false
}

func equal(got, want []byte) error {
	if bytes.Equal(got, want) {
		return nil
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	return fmt.Errorf("%d bytes (%s) rather than %d (%s), different from byte %d on", len(got), kindOf(got), len(want), kindOf(want), i)
}

// names returns what a directory must list, and adds what it may list to may.
func (m *model) names(dir string, may map[string]bool) (must []string) {
	add := func(key string, certain bool) {
		base := strings.TrimPrefix(key, dir+"/")
		if base == key {
			return
		}
		if !parseName(key).temporary {
			base += ".sif"
		}
		switch {
		case !certain && may != nil:
			may[base] = true
		case certain && !slices.Contains(must, base):
			must = append(must, base)
		}
	}
	for _, d := range m.standing {
		if d.visible() {
			add(d.key, true)
		}
	}
	keys := map[string]bool{}
	for key := range m.truth {
		keys[key] = true
	}
	for key := range m.unlisted {
		keys[key] = true
	}
	for key := range keys {
		vs := m.meanings(key)
		if m.unlisted[key] || slices.ContainsFunc(vs, func(v *version) bool { return v != nil }) {
			add(key, !slices.Contains(vs, nil) && !m.unlisted[key])
		}
	}
	slices.Sort(must)
	return must
}

// killed is what becomes of everything when the daemon is killed, with all that the clients
// had open. The next one has what was written, under the same name if that is temporary, else
// among the uploads.
func (m *model) killed() {
	clear(m.fds)
	for _, d := range slices.Clone(m.standing) {
		if len(d.writers) > 0 { // a time that was set is in the journal once the file is closed
			d.cutOff, d.from, d.to = true, time.Time{}, time.Time{}
		}
		clear(d.writers)
		d.mine = nil
		if d.temporary || d.accepted {
			continue
		}
		m.take(d)
		d.over = true
		if len(d.data) == 0 {
			d.states = map[string]bool{"incomplete": true, "": true}
			m.left = append(m.left, d)
		} else if d.dirty || d.inPlace {
			d.states = map[string]bool{"kept": true, "incomplete": true, "failed": true, "": !d.dirty}
			d.states[""] = d.states[""] || d.broken
			m.left = append(m.left, d)
		}
	}
}

// uploads returns what "sreg uploads ls" must show: the state, or several, by name and size.
func (m *model) uploads(r result) error {
	shown := slices.Clone(r.Names)
	drop := func(d *draft, states map[string]bool) error {
		for state, ok := range states {
			if !ok {
				continue
			}
			line := fmt.Sprintf("%s %d %s", d.key, len(d.data), state)
			if i := slices.Index(shown, line); i >= 0 {
				shown = slices.Delete(shown, i, i+1)
				return nil
			}
		}
		if states[""] {
			return nil
		}
		return fmt.Errorf("%s of %d bytes is not among the uploads as %v: %q", d.key, len(d.data), states, r.Names)
	}
	for _, d := range m.standing {
		states := map[string]bool{"writing": true, "failed": d.err != "", "incomplete": d.err != ""}
		if d.temporary { // until it is written again
			states["kept"], states["incomplete"] = true, true
		}
		switch {
		case d.accepted:
			states = map[string]bool{"sealed": true, "publishing": true, "failed": true, "": true}
		case len(d.writers) == 0:
			states = map[string]bool{"kept": true}
			if d.broken || kindOf(d.data) == isPart {
				states = map[string]bool{"incomplete": true}
			}
			states["failed"] = d.refused
			if d.cutOff || kindOf(d.data) == isStrange {
				states["incomplete"], states["kept"] = true, true
			}
			if len(d.data) == 0 {
				states[""], states["incomplete"] = true, true
			}
		}
		if err := drop(d, states); err != nil {
			return err
		}
	}
	for _, sure := range []bool{true, false} { // what need not be there takes no line of what must
		for _, d := range m.left {
			if d.states[""] == sure {
				continue
			}
			if err := drop(d, d.states); err != nil {
				return err
			}
		}
	}
	if len(shown) > 0 {
		return fmt.Errorf("among the uploads, and of nobody: %q", shown)
	}
	return nil
}
