// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
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

	mu     sync.Mutex // guards drafts, and refs and busy of each of them
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
