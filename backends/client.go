// SPDX-License-Identifier: Apache-2.0

package backends

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/sregfs/sregfs/backends/sched"
)

// A Client is a remote as the rest of the program sees it: a backend with
// checked names, retries, limits and errors that say what was being done. All
// methods may be called from many goroutines at once. A capability that the
// backend lacks gives errors.ErrUnsupported.
//
// Every error is an *Error. An answer of the service that will not change is
// given at once; what may pass (ErrUnavailable, ErrRateLimited, silence) is
// tried again until the limit. A service that wants fewer requests is not asked by Stat,
// List and Search before the time that it names, or for a minute; what opens and
// publishes is tried all the same. A remote that nothing was heard from for several
// tries in a row is left alone for some seconds: meanwhile everything fails at
// once with ErrUnavailable, so that a dead registry costs a listing no time. What
// a reader waits for (Demanded) is tried until the limit nevertheless.
type Client struct {
	name     string
	backend  Backend
	caps     Caps
	opts     ClientOptions
	sched    *sched.Scheduler
	stats    sched.Quota // of the questions by each method
	lists    sched.Quota
	searches sched.Quota
	hidden   hiddenNames
	closing  sync.Once
}

// ClientOptions tune a Client. The zero value has the defaults.
type ClientOptions struct {
	ReadOnly    bool          // Push, Delete, Move, Copy, Tag and Untag give ErrReadOnly
	MaxElapsed  time.Duration // for one operation with all its retries; default 60 s; a push or a started body has no such limit
	Concurrency int           // requests under way at once, bodies included; default 32
	Origin      string        // what the name stands for: the address of the service, or the like
	Log         *slog.Logger
}

// NewClient returns a client of b for the remote name. b may be closed through
// it if it is an io.Closer.
func NewClient(name string, b Backend, opts ClientOptions) *Client {
	opts.MaxElapsed = cmp.Or(opts.MaxElapsed, 60*time.Second)
	opts.Concurrency = cmp.Or(opts.Concurrency, sched.DefaultSlots)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{name: name, backend: b, caps: CapsOf(b), opts: opts, sched: sched.New(opts.Concurrency)}
}

// Name returns the remote's name.
func (c *Client) Name() string { return c.name }

// Origin returns ClientOptions.Origin. What was believed of a remote does not hold
// for one of the same name with another origin.
func (c *Client) Origin() string { return c.opts.Origin }

// Scheduler decides what is sent when. Whoever asks it for a slot passes that on to
// Open with sched.With; else each try asks for its own.
func (c *Client) Scheduler() *sched.Scheduler { return c.sched }

// Timeout returns how long one operation may take with all its retries, and how long
// a body may be asked for again and again without bringing anything.
func (c *Client) Timeout() time.Duration { return c.opts.MaxElapsed }

// Caps reports what the remote can do: the backend's capabilities, less
// those that change something where the client is read-only.
func (c *Client) Caps() Caps {
	if c.opts.ReadOnly {
		return c.caps &^ (CanPush | CanDelete | CanMove | CanCopy | CanTag | CanUntag)
	}
	return c.caps
}

// CheckName reports whether ref could be a name here, without a request.
// Errors: fs.ErrInvalid, with the rule that ref breaks.
func (c *Client) CheckName(ref Ref) error {
	return c.fail("check", ref, c.checkName(ref))
}

func (c *Client) checkName(ref Ref) error {
	if err := ref.Check(); err != nil {
		return err
	}
	if nc, ok := c.backend.(NameChecker); ok {
		return Guard(c.opts.Log, func() error { return nc.CheckName(ref) })
	}
	return nil
}

// Hidden returns how many names the last listings left out, because they could
// be no name here.
func (c *Client) Hidden() int { return c.hidden.total() }

// Close closes the backend if it can be closed. A second Close does nothing.
func (c *Client) Close() error {
	var err error
	c.closing.Do(func() {
		if closer, ok := c.backend.(io.Closer); ok {
			err = closer.Close()
		}
	})
	return c.failAll("close", "", err)
}

// fail says what was being done to ref; nil stays nil.
func (c *Client) fail(op string, ref Ref, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Remote: c.name, Ref: ref, Err: c.cause(err)}
}

// failAll is fail for what is not done to one ref.
func (c *Client) failAll(op, subject string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Remote: c.name, Subject: subject, Err: c.cause(err)}
}

// cause is err as a person may read it. With an answer that makes no sense comes where
// it was asked for: that is what has to be looked at.
func (c *Client) cause(err error) error {
	if at := AddressOf(c.backend); at != "" && errors.Is(err, ErrBadAnswer) {
		err = fmt.Errorf("%w (asked %s)", err, at)
	}
	return redacted(err)
}

func (c *Client) unsupported(what string) error {
	return fmt.Errorf("%w: %s cannot %s", errors.ErrUnsupported, c.name, what)
}

// checkImage looks at an image that a service described: what it says becomes
// file names, sizes and cache keys.
func checkImage(img Image) error {
	if err := img.Ref.Check(); err != nil {
		return fmt.Errorf("%w: %v", ErrBadAnswer, err)
	}
	if err := CheckSize(img.Size); err != nil {
		return err
	}
	return CheckDigest(img.Digest)
}

// MaxSize is the size in bytes of the largest image: that of the largest file of
// ext4, on which most caches lie. What is kept for each piece of an image of that
// size still fits into memory.
const MaxSize = 16 << 40

// CheckSize reports whether size can be that of an image, or -1 for not known.
// Errors: ErrBadAnswer.
func CheckSize(size int64) error {
	if size < -1 || size > MaxSize {
		return fmt.Errorf("%w: no image has a size of %d bytes", ErrBadAnswer, size)
	}
	return nil
}

// CheckDigest reports whether digest is "" or has the form of one: a known
// algorithm, a colon, and exactly its number of lower-case hexadecimal digits.
// Errors: ErrBadAnswer.
func CheckDigest(digest string) error {
	if digest == "" {
		return nil
	}
	i := strings.LastIndexByte(digest, ':')
	algorithm, hex := digest[:max(i, 0)], digest[i+1:]
	want := map[string]int{"md5": 32, "sha256": 64, "sha512": 128, "oci-archive2": 64, "oci-sif:1": 64}[algorithm]
	if want == 0 || len(hex) != want || strings.Trim(hex, "0123456789abcdef") != "" {
		return fmt.Errorf("%w: %.80q is no digest", ErrBadAnswer, digest)
	}
	return nil
}

// checkCollection is Ref.Check for the name of a collection; "" is the root.
func checkCollection(collection string) error {
	if collection == "" {
		return nil
	}
	for part := range strings.SplitSeq(collection, "/") {
		if err := checkPart(part); err != nil {
			return fmt.Errorf("collection %q: %w", collection, err)
		}
	}
	return nil
}
