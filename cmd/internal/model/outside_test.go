// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"
)

func at(seconds int64) time.Time { return time.Unix(seconds, 0) }

// pushed is the time of the files that are given to "sreg push".
const pushed = 1_500_000_000

func (m *model) checkSreg(o op, r result) error {
	switch o.verb {
	case "push", "force":
		return m.checkPush(o, parseName(o.arg(1)+".sif"), r)
	case "rm":
		n := parseName(o.arg(0) + ".sif")
		switch {
		case len(m.loose[n.key]) > 0:
			if err := want(r, "", "exit 3"); err != nil || r.Err != "" {
				return err
			}
		case m.truth[n.key] == nil:
			return want(r, "exit 3")
		}
		if err := want(r, ""); err != nil {
			return err
		}
		m.removed(n)
		if len(m.names(n.dir, nil)) == 0 { // a directory stays where it was emptied by rm and mv, see rmdir
			m.dirs[n.dir] = "maybe"
		}
		return nil
	case "pull":
		return m.checkPull(parseName(o.arg(0)+".sif"), r)
	case "uploads":
		return errors.Join(want(r, ""), m.uploads(r))
	case "retry":
		return m.checkRetry(r)
	case "discard":
		m.left = nil
	case "refresh":
		if m.fault == "nolist" {
			return nil
		}
	case "evict":
		if err := want(r, ""); err != nil {
			return err
		}
		clear(m.here)
	}
	return want(r, "")
}

func (m *model) checkPush(o op, n name, r result) error {
	cur := m.truth[n.key]
	data := whole(o.arg(0))
	switch {
	case cur != nil && bytes.Equal(cur.data, data):
		return want(r, "")
	case cur != nil && o.verb == "push":
		return want(r, "exit 1")
	}
	if err := want(r, ""); err != nil {
		return err
	}
	m.own(n.key, &version{data: data, from: at(pushed), to: at(pushed)}, nil)
	return nil
}

func (m *model) checkPull(n name, r result) error {
	vs := m.meanings(n.key)
	var present []*version
	for _, v := range vs {
		if v != nil {
			present = append(present, v)
		}
	}
	if r.Err == "exit 3" && slices.Contains(vs, nil) {
		m.learn(n.key, nil)
		return nil
	}
	f := &file{may: present, remote: n.remote}
	if r.Err != "" {
		for _, errno := range m.mayFail(f) {
			exit := map[string]string{"EIO": "exit 6", "EHOSTDOWN": "exit 5", "ETIMEDOUT": "exit 5"}[errno]
			if exit == r.Err {
				return nil
			}
		}
		return fmt.Errorf("got %v\nwant the image", r)
	}
	if len(present) == 0 {
		return fmt.Errorf("got %v\nwant exit 3", r)
	}
	if err := m.read(f, r, 0, 1<<30); err != nil {
		return err
	}
	if len(f.may) == 1 {
		m.learn(n.key, f.may[0])
		m.here[sha256.Sum256(f.may[0].data)] = n.remote == "lab"
	}
	return nil
}

// checkRetry goes through what is left, the oldest first.
func (m *model) checkRetry(r result) error {
	for _, d := range slices.Clone(m.left) {
		may := m.mayPublish(d, kindOf(d.data))
		if len(may) > 1 || may[0] != "" {
			continue
		}
		m.left = slices.DeleteFunc(m.left, func(o *draft) bool { return o == d })
		if cur := m.truth[d.key]; cur == nil || !bytes.Equal(cur.data, d.data) {
			m.own(d.key, &version{data: d.data, private: d.private && d.remote == "local", from: d.from, to: d.to}, d)
		}
	}
	if len(m.left) == 0 {
		return want(r, "")
	}
	return nil
}

// loses reports whether what a name meant goes with it.
func (m *model) loses(o op, old *version) bool {
	return o.verb == "del" || !bytes.Equal(old.data, whole(o.arg(1)))
}

func (m *model) checkOther(o op) error {
	n := parseName(o.arg(0) + ".sif")
	if o.verb == "del" {
		m.changed(n.key, nil)
		return nil
	}
	m.changed(n.key, &version{data: whole(o.arg(1))})
	return nil
}

func (m *model) checkWorld(o op, r result) error {
	switch o.verb {
	case "blip":
		f := m.fds["c0"+o.arg(0)]
		return m.read(f, r, o.num(1), o.num(2))
	case "heal", "sync":
		if o.verb == "heal" {
			m.lied()
			for dir, there := range m.dirs {
				if m.fault == "nolist" && there == "no" && parseName(dir+"/x.sif").remote == "lab" {
					m.dirs[dir] = "maybe" // what could not be listed counts as there for a while
				}
			}
			m.fault = ""
		}
		clear(m.pending)
		for _, d := range slices.Clone(m.standing) {
			if d.accepted {
				m.take(d)
				d.over = true
			}
		}
	case "kill", "remount":
		m.killed()
	default:
		m.fault = o.verb
	}
	return want(r, "")
}

// lied notes what may have been refused for a lie, which is remembered for a while.
func (m *model) lied() {
	for key := range m.truth {
		for _, v := range m.meanings(key) {
			if v != nil && m.fault == "lie" && parseName(key).remote == "lab" {
				m.tainted[sha256.Sum256(v.data)] = true
			}
		}
	}
}

// legal reports whether the model can say what an operation comes to.
func (m *model) legal(o op) bool {
	switch o.who {
	case "sreg":
		return m.legalSreg(o)
	case "other":
		n := parseName(o.arg(0) + ".sif")
		return !m.pending[n.key] && (o.verb == "put" || m.truth[n.key] != nil) && (!m.async || n.remote != "lab" || len(m.at(n.key)) == 0)
	case "world":
		return m.legalWorld(o)
	}
	for _, p := range o.args {
		n := parseName(p)
		if o.verb == "ls" || o.verb == "mkdir" || o.verb == "rmdir" {
			n = parseName(p + "/x.sif")
		}
		// A directory that may not be listed may be there.
		if m.fault == "nolist" && n.remote == "lab" && m.dirs[n.dir] != "yes" {
			return false
		}
		if n.dir != "" && m.pending[n.key] && (o.verb == "mv" || o.verb == "rm" || o.verb == "open" && o.arg(2) != "r") {
			return false
		}
	}
	switch f := m.fds[o.who+o.arg(0)]; o.verb {
	case "open":
		return f == nil && m.legalOpen(o, parseName(o.arg(1)))
	case "read":
		return f != nil && f.reads
	case "write", "truncate", "utime":
		return f != nil && f.write && (f.draft.mine == nil || !m.async) && !m.pending[f.draft.key]
	case "fsync", "close":
		return f != nil && (!f.write || !m.pending[f.draft.key] || f.draft.accepted)
	case "dup":
		return f != nil && m.fds[o.who+o.arg(1)] == nil
	case "cp":
		n := parseName(o.arg(1))
		d, _ := m.view(o.who, n)
		return !m.pending[n.key] && (d == nil || n.temporary || !m.troubled(n.remote)) && m.legalOpen(op{args: []string{"", "", "w"}}, n)
	case "mv":
		return m.legalMove(o.who, parseName(o.arg(0)), parseName(o.arg(1)))
	case "rm":
		n := parseName(o.arg(0))
		mine, _ := m.view(o.who, n)
		any, _ := m.view("", n)
		return mine == any && (mine == nil || n.temporary || m.truth[n.key] == nil) && (n.temporary || len(m.at(n.key)) == 0)
	}
	return true
}

func (m *model) legalOpen(o op, n name) bool {
	if m.troubled(n.remote) && !n.temporary && o.arg(2) != "r" && o.arg(2) != "w" {
		return false
	}
	vague := len(m.loose[n.key]) > 0 && n.remote == "lab"
	if o.arg(2) != "r" && (m.dirs[n.dir] == "maybe" || vague && m.async) || o.arg(2) == "r" && vague && len(m.at(n.key)) > 0 {
		return false
	}
	if d, vs := m.view(o.who, n); d != nil && d.spelled != n.spelled && len(vs) > 0 && o.arg(2) == "r" {
		return false
	}
	return o.arg(2) != "u" || len(m.loose[n.key]) == 0 && (n.remote != "lab" || m.fault == "")
}

func (m *model) legalMove(who string, from, to name) bool {
	mine, _ := m.view(who, from)
	d, _ := m.view("", from)
	if mine != d || m.dirs[from.dir] == "maybe" || m.dirs[to.dir] == "maybe" || len(m.loose[from.key])+len(m.loose[to.key]) > 0 {
		return false
	}
	if m.fault != "" && (from.remote == "lab" && !from.temporary || to.remote == "lab" && !to.temporary) {
		return false
	}
	if d != nil && (!d.temporary || d.over) || m.pending[to.key] {
		return false
	}
	return to.temporary || len(m.at(to.key)) == 0
}

func (m *model) legalSreg(o op) bool {
	n := parseName(o.arg(0) + ".sif")
	if o.verb == "push" || o.verb == "force" {
		n = parseName(o.arg(1) + ".sif")
	}
	switch o.verb {
	case "push", "force", "rm":
		return m.fault == "" && !m.pending[n.key] && len(m.at(n.key)) == 0
	case "pull":
		return m.fault != "away" && m.fault != "nolist" && !m.pending[n.key]
	case "retry":
		keys := map[string]bool{}
		for _, d := range m.left {
			if keys[d.key] || d.states[""] || len(m.at(d.key)) > 0 || d.touched || d.unsure {
				return false
			}
			keys[d.key] = true
		}
		failed := slices.ContainsFunc(m.standing, func(d *draft) bool { return d.err != "" }) // and is still open: tried, too
		return m.fault == "" && len(m.pending) == 0 && !failed
	case "discard":
		return len(m.standing) == 0 && len(m.pending) == 0
	case "refresh":
		return m.fault == "" || m.fault == "nolist"
	}
	return true
}

func (m *model) legalWorld(o op) bool {
	switch o.verb {
	case "blip":
		f := m.fds["c0"+o.arg(0)]
		return m.fault == "" && f != nil && f.reads && f.remote == "lab" && f.draft == nil
	case "remount":
		return len(m.fds) == 0
	case "heal":
		return m.fault != ""
	case "sync":
		return m.async && m.fault == ""
	case "kill":
		return true
	}
	return m.fault == ""
}
