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
	errNoRanges    = errors.New("the service sends only whole images")
	errNothingLeft = errors.New("others fetch the rest")
)

// outward takes off what is for this package only.
func outward(err error) error {
	if final, ok := errors.AsType[*backends.OpenError](err); ok {
		return final.Err
	}
	return err
}

// final reports whether asking once more would not mend err.
func final(err error) bool {
	_, ok := errors.AsType[*backends.OpenError](err)
	return ok
}

// mayPass reports whether an error is none for ever.
func mayPass(err error) bool {
	for _, s := range []error{io.ErrUnexpectedEOF, backends.ErrUnavailable, backends.ErrRateLimited, context.DeadlineExceeded} {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
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
