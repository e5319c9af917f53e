// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime/debug"
)

// A PanicError is a panic that Guard caught: a defect of ours, or of a library.
// The request that met it fails and no other; it is not tried again.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

// Error names the panic. The stack is in the log.
func (e *PanicError) Error() string { return fmt.Sprintf("internal error: %v", e.Value) }

// LevelPanic is the level at which a panic is logged. A program that shows
// nothing else of its log shows this.
const LevelPanic = slog.LevelError + 4

// Guard calls fn and returns its error. If fn panics that is a *PanicError, and
// log, unless it is nil, gets the stack. Each goroutine that works for a request
// needs a Guard of its own: a panic that nobody catches ends the process, and
// everybody's requests with it.
func Guard(log *slog.Logger, fn func() error) (err error) {
	defer recovered(log, &err)
	return fn()
}

// recovered must be deferred. A panic becomes err.
func recovered(log *slog.Logger, err *error) {
	if v := recover(); v != nil {
		*err = caught(log, v)
	}
}

// Catch is Guard for a function that nobody waits for: deferred, it ends a panic, which
// is in the log.
func Catch(log *slog.Logger) {
	if v := recover(); v != nil {
		_ = caught(log, v)
	}
}

// Raise panics with a PanicError that err holds, in the goroutine that waits for
// the one that panicked. It returns any other error.
func Raise(err error) error {
	if p, ok := errors.AsType[*PanicError](err); ok {
		panic(p)
	}
	return err
}

// caught must be called by the deferred function that recovered v.
func caught(log *slog.Logger, v any) error {
	e, ok := v.(*PanicError)
	if !ok {
		e = &PanicError{Value: v, Stack: debug.Stack()}
	}
	if log != nil {
		log.Log(context.Background(), LevelPanic, "panic", "panic", fmt.Sprint(e.Value), "stack", string(e.Stack))
	}
	return e
}

// guarded is seq with its panics as errors. A panic of the loop over it passes
// through: it is the caller's.
func guarded[T any](log *slog.Logger, seq iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		inside, more := true, true
		defer func() {
			if !inside {
				return
			}
			if v := recover(); v != nil {
				if err := caught(log, v); more {
					var zero T
					yield(zero, err)
				}
			}
		}()
		for v, err := range seq {
			inside = false
			more = yield(v, err)
			inside = true
			if !more {
				return
			}
		}
	}
}
