// SPDX-License-Identifier: Apache-2.0

// Package exit turns an error into an exit code and one line for a person. It is
// the only place where the two commands decide either; docs/errors.md lists the
// codes. It never ends the process itself: main does.
package exit

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/cache/spool"
)

// The exit codes of both commands.
const (
	OK          = 0
	Failed      = 1
	Usage       = 2 // of the command or its configuration
	NotFound    = 3
	NotAllowed  = 4
	Unreachable = 5
	Corrupt     = 6
	Locked      = 7 // already running, or the state is in use
	Interrupted = 130
)

// A CodeError is an error whose code its text and cause do not tell: the
// command line, the configuration, the lock.
type CodeError struct {
	Code int
	Err  error
}

// Error is the text of the cause.
func (e *CodeError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *CodeError) Unwrap() error { return e.Err }

// ErrDifferent is the end of a command that compares two things which are not the same: its
// code says so, as that of diff(1), and it needs no message.
var ErrDifferent = WithCode(Failed, silentError("they differ"))

// WithCode gives err a code, unless it is nil.
func WithCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &CodeError{Code: code, Err: err}
}

// A silentError is one of which the reason was printed.
type silentError string

func (e silentError) Error() string { return string(e) }

// Silently returns an error with a code, which Report does not print: whoever failed has
// said why. It is nil for OK.
func Silently(code int) error {
	if code == OK {
		return nil
	}
	return WithCode(code, silentError("exit code "+strconv.Itoa(code)))
}

// Silent reports whether an error needs no message: who pressed the key knows, and so does
// who has been told already.
func Silent(err error) bool {
	silent, ok := errors.AsType[silentError](err)
	return Code(err) == Interrupted || ok && err.Error() == silent.Error()
}

// Code returns the exit code for err. Where several kinds are joined, the one
// that a script must know about first wins.
func Code(err error) int {
	coded, isCoded := errors.AsType[*CodeError](err)
	_, diskFull := backends.LocalErrno(err)
	is := func(target error) bool { return errors.Is(err, target) }
	switch {
	case err == nil:
		return OK
	case isCoded:
		return coded.Code
	case is(backends.ErrCorrupt):
		return Corrupt
	case diskFull:
		return Failed
	case is(backends.ErrUnavailable), is(backends.ErrRateLimited), is(context.DeadlineExceeded):
		return Unreachable
	case is(backends.ErrNoFile):
		return Usage
	case is(fs.ErrPermission), is(backends.ErrNotAllowed), is(backends.ErrReadOnly):
		return NotAllowed
	case is(fs.ErrNotExist):
		return NotFound
	case is(fs.ErrInvalid), is(errors.ErrUnsupported), is(syscall.ENAMETOOLONG):
		return Usage
	case is(cache.ErrInUse), is(spool.ErrInUse):
		return Locked
	}
	return Failed
}

// Report prints err as "name: message", on one line whatever a registry put into
// it, and returns its code.
func Report(w io.Writer, name string, err error) int {
	code := Code(err)
	if code != OK && !Silent(err) {
		_, _ = io.WriteString(w, name+": "+line(err)+"\n")
	}
	return code
}

// line joins the lines of a joined error. Anything else that would move the
// cursor is escaped.
func line(err error) string {
	return backends.Printable(strings.Join(strings.Split(Text(err), "\n"), "; "))
}

// Text is what an error says to a person: see Plain.
func Text(err error) string { return Plain(err.Error()) }

// besideThePoint are the texts of the sentinels that say an error's kind in words that fit a
// file and nothing else.
var besideThePoint = regexp.MustCompile(`(^|: |; |\n)(?:(?:` + strings.Join([]string{
	regexp.QuoteMeta(fs.ErrNotExist.Error()), regexp.QuoteMeta(fs.ErrExist.Error()),
	regexp.QuoteMeta(fs.ErrInvalid.Error()), regexp.QuoteMeta(fs.ErrClosed.Error()), regexp.QuoteMeta(errors.ErrUnsupported.Error()),
}, "|") + `): )+`)

// Plain is the text of an error without the sentinel that stands before what it is about:
// "file does not exist: no remote is named lab" says the second half. A sentinel that is all
// there is, or the end, stays.
func Plain(text string) string { return besideThePoint.ReplaceAllString(text, "$1") }
