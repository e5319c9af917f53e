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
	"strings"
	"sync"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
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

// check compares. Errors: backends.ErrCorrupt.
func (h *hasher) check() error {
	if got := hex.EncodeToString(h.hash.Sum(nil)); got != h.want {
		return fmt.Errorf("%w: got %s, want %s", backends.ErrCorrupt, got, h.want)
	}
	return nil
}
