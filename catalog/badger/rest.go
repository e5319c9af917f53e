// SPDX-License-Identifier: Apache-2.0

package badger

const (
	// So much is written between two rests at least, in bytes. An hour's
	// lookups write less.
	restAfter = 8 << 20
	// How many seconds nothing is written then. Badger keeps up to eight of the
	// buffers that it builds tables in, and frees one every two seconds.
	restSeconds = 25
)

// A rest finds out when much was written and nothing is any more. The zero value
// is ready.
type rest struct {
	written int64 // in all, at the last rest
	last    int64 // in all, at the last tick
	quiet   int   // seconds without a change
}

// tick is called once a second with how many bytes were written in all, and
// reports whether a rest begins.
func (r *rest) tick(written int64) bool {
	if written != r.last {
		r.last, r.quiet = written, 0
		return false
	}
	r.quiet++
	if r.quiet < restSeconds || written-r.written < restAfter {
		return false
	}
	r.written = written
	return true
}
