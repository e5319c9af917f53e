// SPDX-License-Identifier: Apache-2.0

package layers

import (
	"context"
	"io"
	"sync"

	"github.com/sregfs/sregfs/backends"
)

const (
	// A request for a part of a large layer brings partSize bytes, and maxAhead of them are
	// under way. What they brought is lost when the program ends: no more than a span.
	partSize = 1 << 20
	maxAhead = span / partSize
)

// A body is a range of a layer as it is in the registry: in one request, or in several
// side by side, which are read in their order.
type body struct {
	open   func(off, n int64) *backends.Transfer
	cancel context.CancelFunc

	mu    sync.Mutex // guards the field below
	under []*backends.Transfer

	single *backends.Transfer // where it is one request
	next   int64              // of the next part to be asked for
	end    int64
	parts  []*part // that were asked for, the next to be read first
}

// A part is a part of a body, in memory.
type part struct {
	bytes []byte
	done  chan struct{} // closed once the fields here are valid
	err   error
}

// newBody returns the bytes [off, end) of a layer.
func newBody(ctx context.Context, off, end int64, open func(ctx context.Context, off, n int64) *backends.Transfer) *body {
	ctx, cancel := context.WithCancel(ctx)
	b := &body{cancel: cancel, next: off, end: end}
	b.open = func(off, n int64) *backends.Transfer {
		t := open(ctx, off, n)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.under = append(b.under, t)
		return t
	}
	if end-off <= 2*partSize {
		b.single = b.open(off, end-off)
	}
	return b
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.single != nil {
		return b.single.Read(p)
	}
	for len(b.parts) < maxAhead && b.next < b.end {
		n := min(partSize, b.end-b.next)
		one := &part{bytes: make([]byte, n), done: make(chan struct{})}
		t := b.open(b.next, n)
		go func() {
			defer close(one.done)
			_, one.err = io.ReadFull(t, one.bytes)
			t.Close()
			b.drop(t)
		}()
		b.parts, b.next = append(b.parts, one), b.next+n
	}
	if len(b.parts) == 0 {
		return 0, io.EOF
	}
	one := b.parts[0]
	<-one.done
	if one.err != nil {
		return 0, one.err
	}
	n := copy(p, one.bytes)
	if one.bytes = one.bytes[n:]; len(one.bytes) == 0 {
		b.parts = b.parts[1:]
	}
	return n, nil
}

func (b *body) drop(t *backends.Transfer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, one := range b.under {
		if one == t {
			b.under = append(b.under[:i], b.under[i+1:]...)
			return
		}
	}
}

// each calls fn for the requests that are under way.
func (b *body) each(fn func(*backends.Transfer)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.under {
		fn(t)
	}
}

// Close ends all requests.
func (b *body) Close() error {
	b.cancel()
	if b.single != nil {
		b.single.Close()
	}
	for _, one := range b.parts {
		<-one.done
	}
	return nil
}
