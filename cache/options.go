// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/disk"
	"github.com/sregfs/sregfs/backends/vsif"
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
	// its digest; but small blobs (Options.StrictSize), and the last bytes for a
	// reader of all of one, wait for that.
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

// A Key names a blob: "sha256:<hex>", or for a service without such digests
// "version:<hex of sha256(remote, ref, version)>".
type Key string

// valid reports whether k has the form of a key, which makes it safe as a path.
func (k Key) valid() bool {
	kind, sum, _ := strings.Cut(string(k), ":")
	return (kind == "sha256" || kind == "version") && len(sum) == 2*sha256.Size && strings.Trim(sum, "0123456789abcdef") == ""
}

// KeyOf returns the key of img on the remote of that name.
func KeyOf(remote string, img backends.Image) Key {
	if k := Key(img.Digest); strings.HasPrefix(img.Digest, "sha256:") && k.valid() {
		return k
	}
	if archive.IsDigest(img.Digest) || vsif.IsDigest(img.Digest) {
		// Same manifest, same bytes, whatever names it, and wherever.
		sum := sha256.Sum256([]byte(img.Digest))
		return Key("version:" + hex.EncodeToString(sum[:]))
	}
	fields := []string{remote, img.Ref.Collection, img.Ref.Name, img.Ref.Tag, img.Version}
	if img.Version == "" {
		// Without a validator take all that might change with the bytes.
		fields = append(fields, img.Digest, img.Modified.UTC().String(), img.Ref.Version)
	}
	h := sha256.New()
	for _, f := range fields {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(f)))
		h.Write(n[:])
		h.Write([]byte(f))
	}
	return Key("version:" + hex.EncodeToString(h.Sum(nil)))
}

// An origin names the remote that vouches for bytes which were not compared with their
// digest yet, and the size that it claims. A registry can name the digest of a good image
// and send something else: such bytes must reach only readers of that registry. Whole,
// verified blobs have the origin "".
type origin string

func (o origin) valid() bool {
	return len(o) == sha256.Size && strings.Trim(string(o), "0123456789abcdef") == ""
}

// State is how much of a blob is here.
type State string

// The states of a blob, as `user.sreg.state` shows them (Pinned comes on top).
const (
	Remote  State = "remote"  // nothing is here
	Partial State = "partial" // some ranges are here, or all but not yet verified
	Cached  State = "cached"  // whole and verified
)

func rank(s State) int { return slices.Index([]State{Remote, Partial, Cached}, s) }

// An Index remembers facts about blobs between runs. It may forget any of them
// at any time. Package catalog/index implements it.
type Index interface {
	Load() iter.Seq2[Record, error]
	Save(changed ...Record) error
	Remove(keys ...string) error
}

// A Record is what the index holds of a blob.
type Record struct {
	Key      Key
	Size     int64 // bytes; -1 if not known yet
	State    State
	OnDisk   int64 // bytes of the disk in use
	Used     time.Time
	Verified time.Time // when the digest last matched
	ModTime  time.Time // of the file, when it was verified: another one means "verify again"
}
