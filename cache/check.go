// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/archive"
	"github.com/sregfs/sregfs/backends/sched"
	"github.com/sregfs/sregfs/backends/vsif"
	"github.com/sregfs/sregfs/cache/chunks"
	"github.com/sregfs/sregfs/cache/fetch"
	"github.com/sregfs/sregfs/cache/layers"
)

// hashStep is how many bytes are hashed before the committer looks whether it is time
// to make something durable.
const hashStep = 8 << 20

// A check compares a blob with its digest while it comes in, and knows which of its bytes
// readers got before that. The committer hashes; readers ask what they may have.
type check struct {
	digest string  // that all must have; "" if there is none
	hash   *hasher // of the committer alone; nil without a digest that can be computed
	served *served // nil if the blob was whole when it was opened

	mu      sync.Mutex    // guards the field below
	matched chan struct{} // closed while all is here and the digest matched
}

// step hashes more of what is here without a gap, and reports whether there is still
// more. Errors: ctx's; those of the local disk.
func (c *check) step(ctx context.Context, b *stored) (more bool, err error) {
	if c.done(b.size) {
		return false, nil
	}
	ready := min(b.have.FirstMissing(chunks.Of(c.hash.pos), chunks.Count(b.size))*chunks.Size, b.size)
	if err := c.hash.take(ctx, b.file.Load(), min(ready, c.hash.pos+hashStep)); err != nil {
		return false, err
	}
	return c.hash.pos < ready, nil
}

// done reports whether size bytes were hashed, or need not be.
func (c *check) done(size int64) bool { return c.hash == nil || c.hash.pos == size }

// compare compares the digest of a blob that is done, and wakes the readers that wait for
// it if it matches. Errors: backends.ErrCorrupt.
func (c *check) compare() error {
	if c.hash != nil {
		if err := c.hash.compare(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.compared() {
		close(c.matched)
	}
	return nil
}

// compared is called with mu held.
func (c *check) compared() bool {
	select {
	case <-c.matched:
		return true
	default:
		return false
	}
}

// afresh begins anew, as bytes were lost that were hashed.
func (c *check) afresh() {
	if c.hash != nil {
		c.hash.reset()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.compared() {
		c.matched = make(chan struct{})
	}
}

// match is closed once all is here and the digest matched.
func (c *check) match() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.matched
}

// serve notes that a reader is to get [off, end), and reports whether the digest must
// match first, because a set of readers would have all of the blob then.
func (c *check) serve(off, end int64) (last bool) {
	for n := chunks.Of(off); n < chunks.Count(end); n++ {
		if c.served.chunks.Add(n) {
			c.served.left.Add(-1)
		}
	}
	return c.digest != "" && c.served.left.Load() == 0
}

// A served records which chunks of a part readers got before it was verified. It lives
// longer than one opening: as long as the bytes on the disk stay the same.
type served struct {
	size     int64 // bytes
	chunks   chunks.Set
	left     atomic.Int64 // chunks that no reader got yet
	verified atomic.Bool  // the bytes were found to be right later
}

// An Epoch tells the bytes of one download of a blob from those of another one. The
// zero value is that of verified bytes.
type Epoch struct{ served *served }

// noEpoch is the epoch of a blob of which nothing is here.
var noEpoch = Epoch{&served{}}

// Agrees reports whether bytes of both epochs may be combined: they are of one
// download, or all of them were found to be right. Else one of the downloads was
// thrown away, perhaps because its digest did not match.
func (e Epoch) Agrees(o Epoch) bool { return e == o || e.good() && o.good() }

func (e Epoch) good() bool { return e.served == nil || e.served.verified.Load() }

func newServed(size int64) *served {
	s := &served{size: size, chunks: chunks.NewSet(chunks.Count(size))}
	s.left.Store(chunks.Count(size))
	return s
}

// some reports whether any reader got anything.
func (s *served) some() bool { return s == nil || s.left.Load() < chunks.Count(s.size) }

// An origin from which two downloads of a blob in a row did not match the digest is
// not asked for it for mismatchHold: a third download would cost time and bandwidth for
// nothing. Other origins that have the blob are asked.
const (
	maxMismatches = 2
	mismatchHold  = 10 * time.Minute
)

// A mismatch records downloads of one blob from one origin that did not match its digest.
// The zero value is none.
type mismatch struct {
	row int // downloads in a row that did not match
	at  time.Time
	err error // of the last one
}

// refusal says why the blob is not fetched from there; nil if it is.
func (s *mismatch) refusal() error {
	if s.row < maxMismatches {
		return nil
	}
	if time.Since(s.at) >= mismatchHold {
		*s = mismatch{}
		return nil
	}
	return s.err
}

// refused returns until when the blob is refused, or the zero time.
func (s *mismatch) refused() time.Time {
	if s.refusal() == nil {
		return time.Time{}
	}
	return s.at.Add(mismatchHold)
}

const bufferSize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// A hasher computes the digest of a blob in order, while it comes in, so that it
// need not be read again in the end.
type hasher struct {
	hash hash.Hash
	want string // hexadecimal
	pos  int64  // bytes hashed
}

// newHasher returns nil for digests that cannot be computed: then only the size can be
// checked.
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

// compare compares the digest. Errors: backends.ErrCorrupt.
func (h *hasher) compare() error {
	if got := hex.EncodeToString(h.hash.Sum(nil)); got != h.want {
		return fmt.Errorf("%w: got %s, want %s", backends.ErrCorrupt, got, h.want)
	}
	return nil
}

// hashFile reads all of f and compares. Errors: backends.ErrCorrupt; ctx's; those of the local disk.
func (l layout) hashFile(ctx context.Context, f *os.File, digest string) error {
	info, err := f.Stat()
	if err != nil {
		return localError("read", err)
	}
	if vsif.IsDigest(digest) {
		return readError(layers.Verify(ctx, l.layers(), f, info.Size(), digest, nil))
	}
	h := newHasher(digest)
	if h == nil {
		return nil
	}
	if err := h.take(ctx, f, info.Size()); err != nil {
		return err
	}
	return h.compare()
}

// readError is localError for what read a file and compared it.
func readError(err error) error {
	if err == nil || errors.Is(err, backends.ErrCorrupt) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return localError("read", err)
}

// checkSize refuses a size that no image can have. An image of 0 bytes must have the
// digest of nothing, which can be checked at once.
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
func (s source) Open(ctx context.Context, opts backends.TransferOptions) fetch.Transfer {
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
