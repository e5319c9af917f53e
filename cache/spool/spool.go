// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
)

// Errors of this package; those of backends pass through.
var (
	// ErrInUse: a draft is open, or on its way to its registry.
	ErrInUse = errors.New("in use")
	// ErrClosed: the spool or the handle was closed.
	ErrClosed = errors.New("spool: closed")
)

// A Spool is a directory of drafts: files being copied in, and finished ones
// that are not in their registry yet. Each has a folder with the data and a
// meta.json, which is the journal: what the spool says is durable is so after
// power loss. Methods may be called from many goroutines at once; one process at
// a time owns the directory.
type Spool struct {
	dir      string
	opts     Options
	headroom headroom
	closed   atomic.Bool

	mu     sync.Mutex // guards drafts, and refs, busy, uses and file of each of them
	drafts map[string]*entry
}

// Options tune a Spool. The zero value has the defaults.
type Options struct {
	Reserve int64         // bytes of the disk to leave free: beyond it WriteAt gives ENOSPC; default 64 MiB; negative: none
	KeepBad time.Duration // incomplete drafts are dropped this long after the last change; default 24 h
	// Whole reports whether an incomplete draft is a whole image nevertheless: no timer drops one. Nil: none is.
	Whole func(r io.ReaderAt, size int64) bool
	Log   *slog.Logger
}

const (
	defaultReserve = 64 << 20
	defaultKeepBad = 24 * time.Hour
	draftRoom      = 16 << 10 // bytes that the folder and the journal of a draft take
)

// goneSuffix marks the folder of a draft that is being deleted: the rename is
// the moment from which the draft does not exist, whatever a crash leaves behind.
const goneSuffix = ".gone"

func errNoDraft(id string) error { return backends.NotFound("no draft %q", id) }

// diskError is the border to the disk: the errno that callers act on stay,
// and a missing file of our own must not read as "no such image".
func diskError(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	if errno, ok := backends.LocalErrno(err); ok {
		return fmt.Errorf("spool: %s: %w", op, errno)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("spool: %s: %w", op, errors.ErrUnsupported)
	}
	return fmt.Errorf("spool: %s: %v", op, err)
}
