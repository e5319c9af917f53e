// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"time"

	"github.com/sregfs/sregfs/backends"
	"github.com/sregfs/sregfs/backends/internal/httpx"
	"github.com/sregfs/sregfs/backends/internal/ranged"
)

const (
	// fetchLimit is how long a fetch of the index may take, however slow the
	// network: it goes on when those who wait for it have no more time.
	fetchLimit = 15 * time.Minute
	// indexPatience is how long a question for one image waits for the index
	// before the service is asked.
	indexPatience = 10 * time.Second
	// indexPause is how long after a failure such a question does not wait for the index.
	indexPause = 30 * time.Second
)

// An indexFetch fetches the index, once for all callers that wait for it.
type indexFetch struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the fields below are set
	index  *index
	err    error
}

// load returns the index: from memory, from the file that it is kept in, or
// from the network.
//
// Errors: errors.ErrUnsupported if there is none where it should be;
// backends.ErrUnavailable if it is cut off; else those of backends.Backend.Stat.
func (c *client) load(ctx context.Context) (*index, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if ix := c.loaded.Load(); ix != nil {
		return ix, nil
	}
	f, err := c.join(ctx)
	if err != nil {
		return nil, err
	}
	select {
	case <-f.done:
		return f.index, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join returns the fetch that is under way, or starts one.
func (c *client) join(ctx context.Context) (*indexFetch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, fmt.Errorf("%w: the remote was closed", backends.ErrUnavailable)
	}
	if c.fetching == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchLimit)
		c.fetching = &indexFetch{cancel: cancel, done: make(chan struct{})}
		go c.fly(ctx, c.fetching) // ends with ctx, by Close at the latest
	}
	return c.fetching, nil
}

func (c *client) fly(ctx context.Context, f *indexFetch) {
	defer f.cancel()
	if ix := c.loaded.Load(); ix != nil {
		f.index = ix // the fetch before has brought it
	} else if ix := c.readKept(); ix != nil {
		f.index = ix
	} else {
		f.index, f.err = c.fetch(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.err == nil {
		c.loaded.Store(f.index)
	} else {
		c.failed, c.failedAt = f.err, time.Now()
	}
	c.fetching = nil
	close(f.done)
}

// fetch reads the index from the network, and keeps it.
func (c *client) fetch(ctx context.Context) (*index, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.index, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: index: %v", fs.ErrInvalid, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := httpx.Do(c.http, req)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no index at %s (look at the setting \"index\"; what is named can be opened)", errors.ErrUnsupported, c.index)
	}
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer resp.Body.Close()
	if ranged.IsPage(resp.Header) {
		return nil, fmt.Errorf("%w: a page in place of the index", backends.ErrBadAnswer)
	}
	k := c.newIndexCopy()
	defer k.drop()
	ix, err := decode(io.TeeReader(resp.Body, k), c.most)
	if err != nil {
		return nil, fmt.Errorf("index: %w", backends.TransportError(err))
	}
	if ix.left > 0 {
		c.log.Warn("entries of the index left out", "count", ix.left, "of", ix.count+ix.left, "first", ix.reasons)
	}
	if err := k.keep(); err != nil {
		c.log.Warn("the index is not kept and will be fetched again", "err", err)
	}
	return ix, nil
}

// indexNow is load for a question that the service can answer too: it does not
// wait for long, nor again right after a failure.
func (c *client) indexNow(ctx context.Context) (*index, error) {
	c.mu.Lock()
	failed, at := c.failed, c.failedAt
	c.mu.Unlock()
	if c.loaded.Load() == nil && failed != nil && time.Since(at) < indexPause {
		return nil, failed
	}
	patient, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	ix, err := c.load(patient)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return ix, err
}
