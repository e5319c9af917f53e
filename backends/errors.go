// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"
)

// The sentinels that the standard library lacks. docs/errors.md lists them all
// with their errno and exit code.
var (
	// ErrUnauthorized: no credentials, or not accepted ones. It is an fs.ErrPermission too.
	ErrUnauthorized = Saying(fs.ErrPermission, "not logged in")
	// ErrNoFile: a file that a setting names is not there. It is an ErrUnauthorized too.
	ErrNoFile = Saying(ErrUnauthorized, "a file that the configuration names is not there")
	// ErrNoVariant: a tag that has images for other machines only. It is an fs.ErrNotExist too.
	ErrNoVariant = NotFound("no image for this machine")
	// ErrRateLimited: the service wants fewer requests. RetryAfter may tell when.
	ErrRateLimited = errors.New("rate limited")
	// ErrUnavailable: the service cannot be reached, or answers 5xx or nonsense for a while.
	ErrUnavailable = errors.New("registry unavailable")
	// ErrCorrupt: bytes that do not match their digest, or are not as many as belong to it.
	ErrCorrupt = errors.New("content does not match its digest")
	// ErrBadAnswer: a service, or something in its place, answered what makes no sense:
	// a page instead of JSON, a size that no image has. It says nothing of the image.
	ErrBadAnswer = errors.New("unexpected answer")
	// ErrChanged: a name means another version than the one being read or replaced.
	ErrChanged = errors.New("changed in the registry meanwhile")
	// ErrReadOnly: the remote takes no writes.
	ErrReadOnly = errors.New("remote is read-only")
	// ErrNotAllowed: the registry could, but the configuration forbids it.
	ErrNotAllowed = errors.New("not allowed by the configuration")
	// ErrNotImage: a file that is no image by its first bytes. It is not given out, and
	// so an fs.ErrPermission too.
	ErrNotImage error = notImage{}
)

type notImage struct{}

func (notImage) Error() string        { return "not an image" }
func (notImage) Is(target error) bool { return target == fs.ErrPermission }

var errExists = Saying(fs.ErrExist, "the tag is taken")

// Saying returns an error that is sentinel and reads as the text alone: that "file does
// not exist" is beside the point where no file is meant.
func Saying(sentinel error, format string, args ...any) error {
	return &said{text: fmt.Sprintf(format, args...), sentinel: sentinel}
}

// NotFound is Saying of fs.ErrNotExist. The text tells what there is none of.
func NotFound(format string, args ...any) error { return Saying(fs.ErrNotExist, format, args...) }

type said struct {
	text     string
	sentinel error
}

func (e *said) Error() string { return e.text }
func (e *said) Unwrap() error { return e.sentinel }

// An Error says what was being done to what. Client makes all of them.
type Error struct {
	Op      string // "stat", "open", "list", "push" …
	Remote  string
	Ref     Ref    // zero for operations on the remote as a whole
	Subject string // used in place of Ref where it is not empty: a collection, a query
	Err     error
}

// Error names the operation and its object, then the cause.
func (e *Error) Error() string {
	subject := e.Subject
	if subject == "" && e.Ref != (Ref{}) {
		subject = e.Ref.String()
	}
	return e.Op + " " + e.Remote + "://" + subject + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// A DelayError carries the delay that a service asked for (Retry-After).
type DelayError struct {
	Err   error
	After time.Duration
}

// Error names the delay to the second.
func (e *DelayError) Error() string {
	return fmt.Sprintf("%v (retry in %v)", e.Err, e.After.Round(time.Second))
}

// Unwrap returns the cause.
func (e *DelayError) Unwrap() error { return e.Err }

// RetryAfter returns the delay that a service asked for; 0 if none.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*DelayError](err); ok {
		return e.After
	}
	return 0
}

// DiskError says what was done on the disk of this machine. Of the cause only what errno
// tells passes through: a missing file of ours must not read as "no such image".
func DiskError(what string, err error) error {
	if errno, ok := LocalErrno(err); ok {
		return fmt.Errorf("%s: %w", what, errno)
	}
	return fmt.Errorf("%s: %v", what, err)
}

// LocalErrno returns the errno in err when it tells of this machine rather than of
// a registry: ENOSPC, EDQUOT, EFBIG, EROFS, EIO of a disk; EMFILE, ENFILE, ENOMEM.
func LocalErrno(err error) (syscall.Errno, bool) {
	if e, ok := Shortage(err); ok {
		return e, true
	}
	e, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return 0, false
	}
	switch e {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EROFS, syscall.EIO:
		return e, true
	}
	return 0, false
}

// Shortage returns the errno in err when this process, or this machine, has no
// descriptor or no memory left: EMFILE, ENFILE, ENOMEM. What was to be asked then was
// not asked.
func Shortage(err error) (syscall.Errno, bool) {
	dns, isDNS := errors.AsType[*net.DNSError](err) // the resolver keeps the text only
	// The text of EMFILE is the beginning of that of ENFILE.
	for _, e := range []syscall.Errno{syscall.ENFILE, syscall.EMFILE, syscall.ENOMEM} {
		if errors.Is(err, e) || isDNS && strings.Contains(dns.Err, e.Error()) {
			return e, true
		}
	}
	return 0, false
}
