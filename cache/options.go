// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/sregfs/sregfs/backends/disk"
)

// Options tune a Cache. The zero value has the defaults.
type Options struct {
	MaxBytes int64 // blobs on disk; evicted by last use beyond it; 0 means no limit
	MinFree  int64 // bytes to leave free on the disk; default 256 MiB, or a twentieth of a small disk; negative: none
	Index    Index // nil keeps the facts in memory and finds them again at Open
	Log      *slog.Logger

	// Hints, if not nil, says which ranges of a new blob to fetch first (the
	// head, the tables at the end), given a reader of its bytes. It is called
	// once for each blob, from a goroutine of the cache, when the blob's head is
	// read for the first time: that is somebody mounting or inspecting it.
	Hints func(ctx context.Context, r ReaderAtContext, size int64) []Range

	// Verify says when bytes are given out: Lazy (the default) or Strict.
	Verify Verification
	// StrictSize is the size in bytes up to which a blob is treated as if Verify
	// were Strict: so much is here soon. Default 16 MiB; negative: none.
	StrictSize int64
	// FSVerity lets the kernel guard whole blobs against changes underneath, on
	// filesystems that can (fs-verity: ext4, btrfs, f2fs). Where they cannot, one
	// line in the log says so.
	FSVerity bool

	// Shared are the directories of other caches, in which whole blobs are looked for
	// before they are fetched; see shared.go for what is believed of them.
	Shared []string
	// Warning says why the cache is not what was asked for, "" if it is; see
	// [Cache.Warning].
	Warning string

	NoBackground bool // fetch only what is read, to 1 MiB
	Streams      int  // parallel background requests for one blob at most; 0: as many as its service is best read with, up to 16

	// FillDelay is how long after the first read of a blob the rest of it is
	// fetched, if it is still open by then; default 1 s.
	FillDelay time.Duration
	// Patience is how long a read waits without any progress; default a little more
	// than the client's Timeout.
	Patience time.Duration

	dirtyAge time.Duration // see maxDirtyAge; for tests
}

const (
	defaultMinFree = 256 << 20
	smallDiskShare = 20
)

func (o Options) withDefaults(dir string) Options {
	if o.MinFree == 0 {
		o.MinFree = defaultMinFree
		if _, total, ok := disk.Space(dir); ok {
			o.MinFree = min(o.MinFree, total/smallDiskShare)
		}
	}
	o.StrictSize = cmp.Or(o.StrictSize, 16<<20)
	o.FillDelay = cmp.Or(o.FillDelay, time.Second)
	o.dirtyAge = cmp.Or(o.dirtyAge, maxDirtyAge)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Verification says when the bytes of a blob that is not whole yet are given
// out. The empty one is Lazy.
type Verification string

// When bytes are given out.
const (
	// Lazy gives out ranges as they come in, before the whole can be compared with
	// its digest; but small blobs (Options.StrictSize), and the last bytes for who
	// reads all of one, wait for that.
	Lazy Verification = "lazy"
	// Strict gives out nothing before the whole blob is here and its digest
	// matched. Of a blob without a digest that can be checked it waits for the
	// last byte. Options.Hints may read before that.
	Strict Verification = "strict"
)

// A Range is n bytes from off.
type Range struct{ Off, N int64 }

// ReaderAtContext is io.ReaderAt with a context for the wait.
type ReaderAtContext interface {
	ReadAtContext(ctx context.Context, p []byte, off int64) (int, error)
}
