// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"github.com/dropbox/dropbox-sdk-go-unofficial/v6/dropbox/contenthash"

	"github.com/sregfs/sregfs/backends"
)

// A contentHash computes Dropbox's content_hash: the SHA-256 of the SHA-256 of
// each block. Other than the SDK's it keeps no block in memory.
// https://www.dropbox.com/developers/reference/content-hash
type contentHash struct {
	block, all hash.Hash
	inBlock    int
}

func newContentHash() *contentHash { return &contentHash{block: sha256.New(), all: sha256.New()} }

// Write implements io.Writer. It does not fail.
func (h *contentHash) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		part := p[:min(len(p), contenthash.BlockSize-h.inBlock)]
		h.block.Write(part)
		h.inBlock += len(part)
		p = p[len(part):]
		if h.inBlock == contenthash.BlockSize {
			h.endBlock()
		}
	}
	return n, nil
}

func (h *contentHash) endBlock() {
	h.all.Write(h.block.Sum(nil))
	h.block.Reset()
	h.inBlock = 0
}

// sum ends the hash and returns it in hexadecimal.
func (h *contentHash) sum() string {
	if h.inBlock > 0 {
		h.endBlock()
	}
	return hex.EncodeToString(h.all.Sum(nil))
}

// hashOf returns the content_hash of text.
func hashOf(text []byte) string {
	h := newContentHash()
	h.Write(text) //nolint:errcheck // does not fail
	return h.sum()
}

// A checkedBody is all bytes of an image. Its end comes only if they have the
// content_hash that the service told.
type checkedBody struct {
	io.ReadCloser
	hash *contentHash
	want string
	left int64 // bytes
}

// Read gives backends.ErrCorrupt in the place of the last bytes' io.EOF.
func (b *checkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.hash.Write(p[:n]) //nolint:errcheck // does not fail
	before := b.left
	b.left -= int64(n)
	if before > 0 && b.left <= 0 {
		if got := b.hash.sum(); got != b.want {
			return 0, fmt.Errorf("%w: content_hash %s, want %s", backends.ErrCorrupt, got, b.want)
		}
	}
	return n, err
}
