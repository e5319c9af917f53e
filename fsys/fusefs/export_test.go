// SPDX-License-Identifier: Apache-2.0

//go:build linux

package fusefs

import "log"

// Traced returns opts with all requests and answers written to l.
func Traced(opts Options, l *log.Logger) Options {
	opts.trace = l
	return opts
}

// Generation returns the generation in which the image at a path was opened last.
func (m *Mounted) Generation(ino uint64) uint64 { return m.opened.generation(ino) }

// Invalidate makes the kernel forget a name, and what it knows of it if nobody has
// that open.
func (m *Mounted) Invalidate(name string, dir ...string) {
	if d := m.known(dir); d != nil {
		_ = d.NotifyEntry(name)
	}
}

// Knows reports whether the kernel knows a name.
func (m *Mounted) Knows(name string, dir ...string) bool {
	d := m.known(dir)
	return d != nil && d.GetChild(name) != nil
}
