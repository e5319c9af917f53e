// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"hash"
	"strings"

	"github.com/opencontainers/go-digest"
)

// NewHash returns a hash that is the one in Archive.Digest if every byte written
// is right: each blob has its digest, and the rest is as New lays it out of the
// manifest, the first file. Anything else gives zeros. It keeps the manifest in
// memory and no blob.
func NewHash() hash.Hash { return new(archiveHash) }

type archiveHash struct {
	head    []byte   // what came, until archive is known
	archive *Archive // nil until the manifest is here
	next    int      // piece under way
	done    int64    // bytes of it that came
	blob    digest.Digester
	bad     bool // some byte is wrong
}

// Write implements io.Writer; it never fails.
func (h *archiveHash) Write(p []byte) (int, error) {
	n := len(p)
	switch {
	case h.bad:
	case h.archive != nil:
		h.take(p)
	default:
		h.head = append(h.head, p...)
		h.start()
	}
	return n, nil
}

// manifestAt is where the header of the manifest stands: after two directories.
const manifestAt = 2 * block

// start looks for the manifest in what came.
func (h *archiveHash) start() {
	const text = manifestAt + block
	if len(h.head) < text {
		return
	}
	first, err := tar.NewReader(bytes.NewReader(h.head[manifestAt:text])).Next()
	if err != nil || first.Size <= 0 || first.Size > MaxManifest || !strings.HasPrefix(first.Name, "blobs/sha256/") {
		h.bad, h.head = true, nil
		return
	}
	if int64(len(h.head)) < text+first.Size {
		return
	}
	head := h.head
	h.head = nil
	if h.archive, err = New(bytes.Clone(head[text : text+first.Size])); err != nil {
		h.bad = true
		return
	}
	h.take(head) // the name is compared with the digest there
}

// take compares or hashes what belongs to each piece.
func (h *archiveHash) take(p []byte) {
	for len(p) > 0 && !h.bad {
		if h.next == len(h.archive.pieces) {
			h.bad = true // more than there is
			return
		}
		piece := &h.archive.pieces[h.next]
		n := min(piece.size-h.done, int64(len(p)))
		if piece.blob == "" {
			h.bad = !bytes.Equal(p[:n], piece.text[h.done:h.done+n])
		} else {
			h.hashBlob(piece, p[:n])
		}
		p, h.done = p[n:], h.done+n
		if h.done == piece.size {
			h.bad = h.bad || piece.blob != "" && !h.matches(piece)
			h.next, h.done = h.next+1, 0
		}
	}
}

func (h *archiveHash) hashBlob(piece *piece, p []byte) {
	if h.done == 0 {
		h.blob = digest.Digest(piece.blob).Algorithm().Digester()
	}
	h.blob.Hash().Write(p)
}

func (h *archiveHash) matches(piece *piece) bool {
	if piece.size == 0 {
		h.hashBlob(piece, nil)
	}
	return h.blob.Digest().String() == piece.blob
}

// Sum implements hash.Hash.
func (h *archiveHash) Sum(b []byte) []byte {
	var sum [sha256.Size]byte
	if h.archive != nil && !h.bad && h.next == len(h.archive.pieces) {
		sum = h.archive.sum
	}
	return append(b, sum[:]...)
}

// Reset implements hash.Hash.
func (h *archiveHash) Reset() { *h = archiveHash{} }

// Size implements hash.Hash.
func (h *archiveHash) Size() int { return sha256.Size }

// BlockSize implements hash.Hash.
func (h *archiveHash) BlockSize() int { return block }
