// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/cache/fetch"
)

const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A hasher computes the digest of a blob in order, while it comes in, so that it
// need not be read again in the end.
type hasher struct {
	hash hash.Hash
	want string // hexadecimal
	pos  int64  // bytes hashed
}

// newHasher returns nil for digests that cannot be checked: there is only the
// size to go by then.
func newHasher(digest string) *hasher {
	kind, want, _ := strings.Cut(digest, ":")
	switch kind {
	case "sha256":
		return &hasher{hash: sha256.New(), want: want}
	case "sha512":
		return &hasher{hash: sha512.New(), want: want}
	case "md5": // what older services keep: it finds accidents
		return &hasher{hash: md5.New(), want: want}
	case archive.Algorithm: // of a container image: its manifest stands for all of it
		return &hasher{hash: archive.NewHash(), want: want}
	}
	return nil
}

// reset starts anew.
func (h *hasher) reset() {
	h.hash.Reset()
	h.pos = 0
}

// save returns what restore goes on from.
func (h *hasher) save() []byte {
	if m, ok := h.hash.(encoding.BinaryMarshaler); ok {
		if state, err := m.MarshalBinary(); err == nil {
			return state
		}
	}
	return nil
}

// restore goes on after pos bytes; a state that does not fit starts anew.
func (h *hasher) restore(state []byte, pos int64) {
	u, ok := h.hash.(encoding.BinaryUnmarshaler)
	if pos == 0 || !ok || u.UnmarshalBinary(state) != nil {
		h.reset()
		return
	}
	h.pos = pos
}

// take hashes the file up to end. Errors: those of the local disk; ctx's.
func (h *hasher) take(ctx context.Context, file io.ReaderAt, end int64) error {
	buf := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(buf)
	for h.pos < end {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		n, err := file.ReadAt(buf[:min(bufferSize, end-h.pos)], h.pos)
		if n == 0 {
			return localError("read", err)
		}
		h.hash.Write(buf[:n])
		h.pos += int64(n)
	}
	return nil
}

// compare compares. Errors: backends.ErrCorrupt.
func (h *hasher) compare() error {
	if got := hex.EncodeToString(h.hash.Sum(nil)); got != h.want {
		return fmt.Errorf("%w: got %s, want %s", backends.ErrCorrupt, got, h.want)
	}
	return nil
}

// hashFile reads all of f and compares. Errors: backends.ErrCorrupt; ctx's; those of the local disk.
func hashFile(ctx context.Context, f *os.File, digest string) error {
	h := newHasher(digest)
	if h == nil {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return localError("read", err)
	}
	if err := h.take(ctx, f, info.Size()); err != nil {
		return err
	}
	return h.compare()
}

// checkSize refuses what no image can be. Whoever says that an image has no bytes
// says that its digest is that of nothing: there is nothing to wait for.
// Errors: backends.ErrCorrupt.
func checkSize(size int64, digest string) error {
	if size > backends.MaxSize {
		return fmt.Errorf("%w: an image of %d bytes", backends.ErrCorrupt, size)
	}
	if h := newHasher(digest); size == 0 && h != nil {
		if err := h.compare(); err != nil {
			return fmt.Errorf("the registry says 0 bytes: %w", err)
		}
	}
	return nil
}

// A source is a place that a blob can be fetched from.
type source struct {
	client *backends.Client
	image  backends.Image
}

// Open implements fetch.Source.
func (s source) Open(ctx context.Context, opts backends.TransferOptions) *backends.Transfer {
	return s.client.Transfer(ctx, s.image, opts)
}

// Scheduler implements fetch.Source.
func (s source) Scheduler() *sched.Scheduler { return s.client.Scheduler() }

// Timeout implements fetch.Source.
func (s source) Timeout() time.Duration { return s.client.Timeout() }

// Same implements fetch.Source.
func (s source) Same(other fetch.Source) bool {
	o, ok := other.(source)
	return ok && s.client == o.client && s.image.Ref == o.image.Ref && s.image.Version == o.image.Version
}

// String is for people.
func (s source) String() string { return s.client.Name() + "://" + s.image.Ref.String() }

// digestOf returns the digest that the blob of key must have, "" if there is none.
func (s source) digestOf(key Key) string {
	if k := string(key); strings.HasPrefix(k, "sha256:") {
		return k
	}
	return s.image.Digest
}

// origin returns the origin of what comes from the source.
func (s source) origin() origin {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", s.client.Name(), s.client.Origin(), s.image.Size))
	return origin(hex.EncodeToString(sum[:sha256.Size/2]))
}
