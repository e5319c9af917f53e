// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
)

// check compares what an operation came to with what it may come to, and goes on from there.
func (m *model) check(o op, r result) error {
	m.ending = ""
	switch {
	case r.Err == "HANGS" || r.Err == "?" || r.Err == "ENOSYS":
		return fmt.Errorf("got %v", r)
	case o.who == "sreg":
		return m.checkSreg(o, r)
	case o.who == "other":
		return m.checkOther(o)
	case o.who == "world":
		return m.checkWorld(o, r)
	}
	switch o.verb {
	case "open":
		f, err := m.open(o.who, parseName(o.arg(1)), o.arg(2), r)
		if f != nil {
			f.fds = 1
			m.fds[o.who+o.arg(0)] = f
		}
		return err
	case "cp":
		return m.copy(o, r)
	case "cat":
		return m.cat(o, r)
	case "stat":
		return m.stat(o, r)
	case "ls":
		return m.list(o.arg(0), r)
	case "mv":
		return m.rename(o.who, parseName(o.arg(0)), parseName(o.arg(1)), r)
	case "rm":
		return m.unlink(o.who, parseName(o.arg(0)), r)
	case "mkdir", "rmdir":
		return m.makeDir(o.verb, o.arg(0), r)
	}
	return m.checkFile(o, r, m.fds[o.who+o.arg(0)])
}

func (m *model) checkFile(o op, r result, f *file) error {
	switch o.verb {
	case "read":
		return m.read(f, r, o.num(1), o.num(2))
	case "write":
		return m.write(f, r, content(o.arg(1), o.num(2), o.num(3)), o.num(2))
	case "truncate":
		return m.truncate(f, r, o.num(1))
	case "fsync":
		if d := f.draft; d != nil && d.broken {
			return want(r, d.err)
		}
	case "utime":
		if d := f.draft; d != nil && !d.over && !d.accepted {
			d.from = at(o.num(1))
			d.to = d.from
		}
	case "dup":
		f.fds++
		m.fds[o.who+o.arg(1)] = f
	case "close":
		delete(m.fds, o.who+o.arg(0))
		return m.closeOne(f, r)
	default:
		return fmt.Errorf("%s: no such operation", o)
	}
	return want(r, "")
}

// open checks an open(2), and returns the file if there is one.
func (m *model) open(who string, n name, flag string, r result) (*file, error) {
	if m.dirs[n.dir] == "no" {
		return nil, m.wantOr(n.remote, r, "ENOENT")
	}
	d, vs := m.view(who, n)
	present := slices.DeleteFunc(slices.Clone(vs), func(v *version) bool { return v == nil })
	var f *file
	allowed := []string{""}
	if slices.Contains(vs, nil) && d == nil && (flag == "r" || flag == "u") || m.dirs[n.dir] == "maybe" {
		allowed = []string{"", "ENOENT"}
		if len(present) == 0 && m.dirs[n.dir] != "maybe" {
			allowed = []string{"ENOENT"}
		}
	}
	switch {
	case flag == "x" && (d != nil || len(present) > 0):
		if allowed = []string{"EEXIST"}; d == nil && slices.Contains(vs, nil) {
			allowed = append(allowed, "")
		}
	case flag == "u" && d == nil && len(present) > 0 && !m.overwrites(n.remote):
		allowed = append(allowed[1:], "EPERM")
	}
	if !n.temporary {
		if err := m.wantOr(n.remote, r, allowed...); err != nil || r.Err != "" {
			return nil, err
		}
	} else if err := want(r, allowed...); err != nil || r.Err != "" {
		return nil, err
	}
	switch {
	case flag == "r" && d == nil:
		f = &file{client: who, may: present, remote: n.remote, reads: true}
	case flag == "r" || flag == "u" && d != nil:
		f = m.share(who, d, flag, r)
	case flag == "u":
		f = m.change(who, n)
	case d != nil && (d.temporary || d.writtenOnlyBy(who)):
		f = m.share(who, d, flag, r)
	default:
		f = m.beginBeside(d, who, n, flag)
	}
	return f, nil
}

func (d *draft) writtenOnlyBy(who string) bool {
	for f := range d.writers {
		if f.client != who {
			return false
		}
	}
	return !d.accepted
}

// beginBeside begins a draft for a client to whom the name was that of another, whose mode
// truncating does not change.
func (m *model) beginBeside(other *draft, who string, n name, flag string) *file {
	f := m.begin(who, n, flag)
	if other != nil {
		f.draft.private = other.private
	}
	return f
}

// change opens an image to change it in place: who does already is joined.
func (m *model) change(who string, n name) *file {
	for _, d := range m.at(n.key) {
		if d.inPlace && len(d.writers) > 0 && d.err == "" {
			return m.share(who, d, "u", result{})
		}
	}
	f := m.begin(who, n, "u")
	f.draft.data, f.draft.inPlace = bytes.Clone(m.truth[n.key].data), true
	f.draft.from, f.draft.to = m.truth[n.key].from, m.truth[n.key].to
	m.here[sha256.Sum256(f.draft.data)] = n.remote == "lab"
	return f
}

// copy is open, write, close; the first error is the result.
func (m *model) copy(o op, r result) error {
	n := parseName(o.arg(1))
	good := result{From: r.From, To: r.To}
	d, _ := m.view(o.who, n)
	if m.dirs[n.dir] == "no" {
		return m.wantOr(n.remote, r, "ENOENT")
	}
	if m.dirs[n.dir] == "maybe" && r.Err == "ENOENT" {
		return nil
	}
	if m.troubled(n.remote) && !n.temporary && slices.Contains(troubles, r.Err) {
		for _, l := range m.left {
			if l.key == n.key {
				l.states[""] = true // whether the new one got as far as to replace it nobody sees
			}
		}
		m.left = append(m.left, &draft{name: n, data: whole(o.arg(0)), over: true, base: m.truth[n.key],
			states: map[string]bool{"failed": true, "incomplete": true, "": true}})
		return nil
	}
	f := &file{client: o.who, remote: n.remote, write: true}
	if d != nil && (n.temporary || d.writtenOnlyBy(o.who)) {
		f = m.share(o.who, d, "w", r)
	} else {
		f = m.beginBeside(d, o.who, n, "w")
	}
	f.fds = 1
	wrote := good
	if same := f.draft.same; same != nil && r.Err == "EPERM" && (f.draft.unsure || m.fault != "") && len(f.draft.writers) == 1 { // from write, or from close
		delete(f.draft.writers, f)
		m.take(f.draft)
		f.draft.data, f.draft.over, f.draft.states = whole(o.arg(0)), true, map[string]bool{"failed": true, "incomplete": true, "": true}
		m.left = append(m.left, f.draft)
		return nil
	} else if same != nil && r.Err == "EPERM" && !bytes.Equal(cut(same.data, 0, 4096), content(o.arg(0), 0, 4096)) {
		wrote.Err = "EPERM"
	}
	if err := m.write(f, wrote, whole(o.arg(0)), 0); err != nil {
		return err
	}
	return m.closeOne(f, r)
}

func (m *model) cat(o op, r result) error {
	n := parseName(o.arg(0))
	opened := r
	d, vs := m.view(o.who, n)
	if i := slices.IndexFunc(vs, func(v *version) bool { return v != nil && r.Err == "" && bytes.Equal(v.data, r.Data) }); d != nil && i >= 0 {
		if !bytes.Equal(d.data, r.Data) { // others made it; who does not know it yet sees the draft
			m.learn(n.key, vs[i])
		}
		return nil
	}
	if d == nil && (len(r.Data) > 0 || slices.Contains([]string{"EIO", "EHOSTDOWN", "ETIMEDOUT"}, r.Err) && slices.ContainsFunc(vs, func(v *version) bool { return v != nil })) {
		opened.Err = ""
	}
	if m.troubled(n.remote) && (m.dirs[n.dir] != "yes" || len(m.loose[n.key]) > 0) && slices.Contains(troubles, r.Err) {
		return nil // the mount had not heard of it
	}
	f, err := m.open(o.who, n, "r", opened)
	if err != nil {
		return err
	}
	if f == nil {
		if r.Err == "ENOENT" {
			m.learn(n.key, nil)
		}
		return nil
	}
	if err := m.read(f, r, 0, 1<<30); err != nil {
		return err
	}
	if f.draft == nil && r.Err == "" && len(f.may) == 1 {
		m.learn(n.key, f.may[0])
	}
	return nil
}

func (m *model) stat(o op, r result) error {
	n := parseName(o.arg(0))
	if m.dirs[n.dir] == "no" {
		return m.wantOr(n.remote, r, "ENOENT")
	}
	d, vs := m.view(o.who, n)
	if d != nil {
		vs = append([]*version{{data: d.data, private: d.private, anyMode: d.unsure || d.accepted, from: d.from, to: d.to}}, vs...)
	}
	if r.Err != "" {
		if d == nil && slices.Contains(vs, nil) || m.dirs[n.dir] == "maybe" {
			if r.Err == "ENOENT" {
				m.learn(n.key, nil)
			}
			return m.wantOr(n.remote, r, "ENOENT")
		}
		return m.wantOr(n.remote, r)
	}
	var errs []string
	var right []*version
	for _, v := range vs {
		if v == nil {
			errs = append(errs, "nothing")
			continue
		}
		if err := v.looks(r); err != nil {
			errs = append(errs, err.Error())
			continue
		}
		right = append(right, v)
	}
	switch {
	case len(right) == 0:
		return fmt.Errorf("got %v\nwant %s", r, strings.Join(errs, "; or "))
	case len(right) == 1 && d == nil:
		m.learn(n.key, right[0])
	}
	return nil
}

// looks compares what stat tells.
func (v *version) looks(r result) error {
	switch {
	case r.Size != int64(len(v.data)):
		return fmt.Errorf("a size of %d", len(v.data))
	case !v.anyMode && (r.Mode&0o044 == 0) != v.private:
		return fmt.Errorf("readable by others: %v", !v.private)
	case !v.from.IsZero() && (r.MTime.Before(v.from) || r.MTime.After(v.to)):
		return fmt.Errorf("a time from %v to %v", v.from.UTC(), v.to.UTC())
	}
	return nil
}

func (m *model) list(dir string, r result) error {
	if r.Err != "" {
		switch {
		case m.dirs[dir] == "no":
			return m.wantOr(parseName(dir).remote, r, "ENOENT")
		case m.dirs[dir] == "maybe":
			return m.wantOr(parseName(dir).remote, r, "ENOENT")
		case m.fault == "nolist":
			return want(r, "EACCES", "EHOSTDOWN") // the first one, or one that broke off
		}
		return m.wantOr(parseName(dir).remote, r)
	}
	if m.dirs[dir] == "no" {
		return fmt.Errorf("got %v\nwant ENOENT", r)
	}
	may := map[string]bool{}
	must := m.names(dir, may)
	for _, name := range r.Names {
		if !slices.Contains(must, name) && !may[name] {
			return fmt.Errorf("got %q, of which %q is not there; want %q", r.Names, name, must)
		}
	}
	for _, name := range must {
		if !slices.Contains(r.Names, name) {
			return fmt.Errorf("got %q, without %q", r.Names, name)
		}
	}
	return nil
}

func (m *model) makeDir(verb, dir string, r result) error {
	n := parseName(dir + "/x.sif")
	there := m.dirs[dir]
	may := map[string]bool{}
	must := m.names(dir, may)
	var allowed []string
	switch {
	case verb == "mkdir" && there == "no":
		allowed = []string{""}
	case verb == "mkdir" && there == "yes":
		allowed = []string{"EEXIST"}
	case verb == "mkdir":
		allowed = []string{"EEXIST", ""}
	case there == "no":
		allowed = []string{"ENOENT"}
	case len(must) > 0:
		allowed = []string{"ENOTEMPTY"}
	default:
		allowed = []string{""}
		if len(may) > 0 {
			allowed = append(allowed, "ENOTEMPTY")
		}
		if there == "maybe" {
			allowed = append(allowed, "ENOENT")
		}
		if there == "maybe" && n.remote == "local" { // others emptied it: see "What it does not hold yet" in decision 80
			allowed = append(allowed, "EPERM")
		}
		if m.fault == "nolist" && n.remote == "lab" {
			allowed = append(allowed, "EACCES")
		}
	}
	if err := m.wantOr(n.remote, r, allowed...); err != nil {
		return err
	}
	switch {
	case r.Err == "" && verb == "mkdir", r.Err == "EEXIST" && verb == "mkdir":
		m.dirs[dir] = "yes"
	case r.Err == "" && verb == "rmdir", r.Err == "ENOENT":
		if m.dirs[dir] = "no"; len(must)+len(may) > 0 {
			m.dirs[dir] = "maybe" // others put something there
		}
	}
	return nil
}

func (m *model) unlink(who string, n name, r result) error {
	if m.dirs[n.dir] == "no" {
		return m.wantOr(n.remote, r, "ENOENT")
	}
	d, vs := m.view(who, n)
	if d != nil {
		if err := want(r, ""); err != nil {
			return err
		}
		m.take(d)
		d.over = true
		return nil
	}
	cur, vague := vs[0], len(m.loose[n.key]) > 0 || m.dirs[n.dir] == "maybe"
	allowed := []string{""}
	switch {
	case vague && m.overwrites(n.remote):
		allowed = []string{"", "ENOENT", "ESTALE"}
	case vague:
		allowed = []string{"EPERM", "ENOENT"}
	case cur == nil:
		allowed = []string{"ENOENT"}
	case !m.overwrites(n.remote):
		allowed = []string{"EPERM"}
	}
	if err := m.wantOr(n.remote, r, allowed...); err != nil || r.Err != "" {
		return err
	}
	m.removed(n)
	return nil
}

// removed notes that an image was deleted through the mount, whose directory stays.
func (m *model) removed(n name) {
	delete(m.truth, n.key)
	delete(m.loose, n.key)
	delete(m.unlisted, n.key)
}

func (m *model) rename(who string, from, to name, r result) error {
	if m.dirs[from.dir] == "no" || m.dirs[to.dir] == "no" {
		return m.wantOr("lab", r, "ENOENT")
	}
	d, vs := m.view("", from)
	switch {
	case d != nil:
		return m.renameDraft(d, to, r)
	case vs[0] == nil:
		return want(r, "ENOENT")
	case to.key == from.key: // one inode under two names: the kernel does nothing
		return want(r, "")
	case !m.overwrites(from.remote):
		return want(r, "EPERM")
	case to.temporary || to.remote != from.remote:
		return want(r, "EXDEV")
	}
	if err := want(r, ""); err != nil {
		return err
	}
	v := vs[0]
	m.removed(from)
	m.own(to.key, v, nil)
	return nil
}

func (m *model) renameDraft(d *draft, to name, r result) error {
	switch {
	case d.err != "":
		return want(r, d.err)
	case d.key == to.key:
		return want(r, "")
	}
	old := *d
	cur := m.truth[to.key]
	replaced := m.at(to.key)
	m.take(d)
	d.name = to
	if !to.temporary {
		d.dirty, d.base, d.same, d.touched, d.unsure = true, cur, nil, false, false
		if cur != nil && !m.overwrites(to.remote) {
			d.same = cur
		}
	}
	for _, other := range replaced {
		if to.temporary && r.Err == "" {
			m.take(other)
			other.over = true
		}
	}
	m.standing = append(m.standing, d)
	switch {
	case to.temporary || len(d.writers) > 0:
		return want(r, "")
	case len(d.data) == 0: // nothing to publish: what that means nobody promises
		m.take(d)
		if err := want(r, "", "EINVAL", "EIO"); err != nil || r.Err == "" {
			d.over = true
			return err
		}
	default:
		m.dropLeft(to.key, "incomplete")
		if err := m.publish(d, r); err != nil || r.Err == "" {
			return err
		}
		m.take(d)
	}
	// It keeps its old name, so that whoever renames can try again.
	*d = old
	d.refused = true
	m.standing = append(m.standing, d)
	return nil
}
