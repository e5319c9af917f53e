// SPDX-License-Identifier: Apache-2.0

package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"syscall"

	badgerdb "github.com/dgraph-io/badger/v4"
)

// A panicError is a panic of Badger's that contained caught.
type panicError struct {
	cause any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic in badger: %v\n%s", e.cause, e.stack) }

// contained calls fn, and turns a panic of it into an error; also the fault
// that reading a memory map gives when the disk has an error there or the file
// has become shorter. It cannot help on goroutines that Badger starts.
func contained(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if cause := recover(); cause != nil {
			err = &panicError{cause, debug.Stack()}
		}
	}()
	return fn()
}

// portable maps an error of Badger's to one of the contract. The others keep
// their text only; Badger itself mostly hides the errno of what it wraps.
func portable(err error) error {
	if err == nil {
		return nil
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("%v: %w", err, errno)
	}
	switch {
	case errors.Is(err, badgerdb.ErrKeyNotFound):
		return fs.ErrNotExist
	case errors.Is(err, badgerdb.ErrDBClosed), errors.Is(err, badgerdb.ErrBlockedWrites):
		return fs.ErrClosed
	}
	return fmt.Errorf("%v", err) // Badger's errors are no part of our contract
}
