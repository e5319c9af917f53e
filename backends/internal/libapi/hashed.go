// SPDX-License-Identifier: Apache-2.0

package libapi

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

// A Hashed reader reads a part of the content of a push and knows its sums. It
// gives its last bytes only after Check, which may look at the sums of all: a
// request whose body stops short of its Content-Length stores nothing.
type Hashed struct {
	Check func() error // may be nil
	Tell  func(n int)  // is told of bytes that were given out; may be nil

	mu      sync.Mutex // guards the fields below: a transport may read on when it has answered
	content io.Reader
	left    int64
	sha     hash.Hash
	md5     hash.Hash // nil if nobody asks for it
	err     error     // what ended it, which a transport would blur
}

// errOver ends what a transport reads of a request that is over.
var errOver = errors.New("the request is over")

// NewHashed returns a reader of n bytes of content from off.
func NewHashed(content io.ReaderAt, off, n int64) *Hashed {
	return &Hashed{content: io.NewSectionReader(content, off, n), left: n, sha: sha256.New()}
}

// WithMD5 makes h compute the MD5 too. Call it before the first Read.
func (h *Hashed) WithMD5() *Hashed {
	h.md5 = md5.New()
	return h
}

// Read implements io.Reader. An error stays.
// Errors: backends.ErrCorrupt if the content is shorter than it was; Check's.
func (h *Hashed) Read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return 0, h.err
	}
	n, err := io.ReadFull(h.content, p[:min(int64(len(p)), h.left)])
	h.sha.Write(p[:n])
	if h.md5 != nil {
		h.md5.Write(p[:n])
	}
	h.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		h.err = fmt.Errorf("%w: the source is shorter than it was", backends.ErrCorrupt)
	case err != nil:
		h.err = err
	case h.left == 0 && h.Check != nil:
		h.err = h.Check()
		h.Check = nil
	case h.left == 0 && n == 0:
		h.err = io.EOF
	}
	if h.err != nil {
		return 0, h.err
	}
	if h.Tell != nil {
		h.Tell(n)
	}
	return n, nil
}

// Failed returns what was wrong with the content, nil if nothing was. Nothing is read, and Tell
// is not called, after that: a transport returns before it has let go of a request's body.
func (h *Hashed) Failed() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = errOver
	}
	if errors.Is(h.err, io.EOF) || errors.Is(h.err, errOver) {
		return nil
	}
	return h.err
}

// SHA256 returns the sum of what was read, in hexadecimal digits: for Check, or after the end.
func (h *Hashed) SHA256() string { return hex.EncodeToString(h.sha.Sum(nil)) }

// MD5 is SHA256 for the other sum, after WithMD5.
func (h *Hashed) MD5() string { return hex.EncodeToString(h.md5.Sum(nil)) }

// SameDigest compares a sum of all bytes of src with what src says.
// Errors: backends.ErrCorrupt.
func SameDigest(src backends.Source, sha string) error {
	if "sha256:"+sha == src.Digest {
		return nil
	}
	return fmt.Errorf("%w: the source has %s, not %s", backends.ErrCorrupt, sha, src.Digest)
}

// CheckSource reads the content of src for its digest alone, where its bytes are
// stored already.
// Errors: those of Hashed.Read and SameDigest.
func CheckSource(src backends.Source) error {
	whole := NewHashed(src.Content, 0, src.Size)
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return err
	}
	return SameDigest(src, whole.SHA256())
}
