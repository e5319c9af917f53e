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
