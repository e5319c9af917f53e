// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// Errors of this package; those of backends and of the sink pass through.
var (
	// ErrNoRoom: the disk is full, for now.
	ErrNoRoom = errors.New("cache: no room on the disk")
	// ErrClosed: the download has ended, and neither with all bytes nor with a reason.
	ErrClosed = errors.New("cache: closed")
)

var (
	errStalled     = errors.New("the transfer stalled")
	errNoRanges    = errors.New("the service sends only whole images")
	errNothingLeft = errors.New("others fetch the rest")
	errDrips       = errors.New("the registry sends next to nothing at a time")
)

// A finalError is one that asking once more would not mend: the source gave it after
// its own retries, or the local disk did.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// outward takes off what is for this package only.
func outward(err error) error {
	if final, ok := errors.AsType[*finalError](err); ok {
		return final.error
	}
	return err
}

// resumable reports whether a request for the rest may succeed at once.
func resumable(err error) bool {
	_, final := errors.AsType[*finalError](err)
	return !final && mayPass(err)
}

// mayPass reports whether an error is none for ever.
func mayPass(err error) bool {
	for _, s := range []error{errStalled, io.ErrUnexpectedEOF, backends.ErrUnavailable, backends.ErrRateLimited, context.DeadlineExceeded} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// gaveUp is err in the sentinels that callers know.
func gaveUp(err error) error {
	switch {
	case errors.Is(err, errStalled):
		return fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	case errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, backends.ErrUnavailable):
		return fmt.Errorf("%w: answers end before their length: %w", backends.ErrUnavailable, err)
	}
	return err
}

func errNoProgress(patience time.Duration) error {
	return fmt.Errorf("%w: nothing came in for %v", context.DeadlineExceeded, patience)
}

// A failure is the last one that a reader was told of. Until it is over, whoever begins
// to ask for what is missing gets it at once: the service is not asked again for each
// of a thousand reads. What may pass is not told to those who waited already: they have
// a time of their own, see reader. The zero value is none.
type failure struct {
	err   error
	at    time.Time
	until time.Time
	row   int // failures in a row
}

const (
	failureMin = time.Second
	failureMax = 30 * time.Second
)

// note notes another failure.
func (f *failure) note(err error) {
	pause := min(failureMin<<min(f.row, 10), failureMax)
	now := time.Now()
	*f = failure{err: err, at: now, until: now.Add(pause), row: f.row + 1}
}

// holds returns the failure if it still holds for a reader who began to wait then.
func (f *failure) holds(began time.Time) error {
	if f.err == nil || !time.Now().Before(f.until) || began.Before(f.at) && mayPass(f.err) {
		return nil
	}
	return f.err
}
