// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"syscall"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/cache"
	"github.com/sregfs/sregfs/catalog"
	"github.com/sregfs/sregfs/catalog/inspect"
)

// ErrProtocol means that the other side speaks another version of the protocol,
// or something else altogether.
var ErrProtocol = errors.New("not the same protocol")

// codes says by which name a sentinel travels. An error can match several.
var codes = []struct {
	name string
	err  error
}{
	{"not-exist", fs.ErrNotExist},
	{"exist", fs.ErrExist},
	{"no-file", backends.ErrNoFile},
	{"unauthorized", backends.ErrUnauthorized},
	{"permission", fs.ErrPermission},
	{"invalid", fs.ErrInvalid},
	{"closed", fs.ErrClosed},
	{"unsupported", errors.ErrUnsupported},
	{"rate-limited", backends.ErrRateLimited},
	{"unavailable", backends.ErrUnavailable},
	{"corrupt", backends.ErrCorrupt},
	{"bad-answer", backends.ErrBadAnswer},
	{"changed", backends.ErrChanged},
	{"read-only", backends.ErrReadOnly},
	{"not-allowed", backends.ErrNotAllowed},
	{"in-use", cache.ErrInUse},
	{"cache-closed", cache.ErrClosed},
	{"catalog-closed", catalog.ErrClosed},
	{"incomplete", inspect.ErrIncomplete},
	{"not-image", inspect.ErrNotImage},
	{"canceled", context.Canceled},
	{"deadline", context.DeadlineExceeded},
	{"unexpected-eof", io.ErrUnexpectedEOF},
	{"protocol", ErrProtocol},
	{"enospc", syscall.ENOSPC},
	{"edquot", syscall.EDQUOT},
	{"efbig", syscall.EFBIG},
	{"erofs", syscall.EROFS},
	{"eio", syscall.EIO},
	{"enametoolong", syscall.ENAMETOOLONG},
}

// A wireError is an error as it travels.
type wireError struct {
	Message string   `json:"message"`
	Codes   []string `json:"codes,omitempty"`
	// RetryAfter is the delay that a service asked for, in nanoseconds.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
}

func encodeError(err error) *wireError {
	w := &wireError{Message: err.Error(), RetryAfter: backends.RetryAfter(err)}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			w.Codes = append(w.Codes, c.name)
		}
	}
	return w
}

// decode makes an error with the text and the sentinels of the one that was
// encoded. A code that this version does not know is left out: the text still
// says what happened.
func (w *wireError) decode() error {
	e := &remoteError{message: w.Message}
	for _, name := range w.Codes {
		for _, c := range codes {
			if c.name == name {
				e.is = append(e.is, c.err)
			}
		}
	}
	if w.RetryAfter > 0 {
		e.is = append(e.is, &backends.DelayError{Err: backends.ErrRateLimited, After: w.RetryAfter})
	}
	return e
}

// A remoteError is an error that happened on the other side.
type remoteError struct {
	message string
	is      []error
}

func (e *remoteError) Error() string   { return e.message }
func (e *remoteError) Unwrap() []error { return e.is }
